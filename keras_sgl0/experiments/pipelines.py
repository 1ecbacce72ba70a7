"""What all pipelines of `tf.data` have in common here."""

from keras_sgl0.utils.extras import name_extra

with name_extra():
    import tensorflow as tf


def untuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a pipeline that does not tune itself, so that it ends at once.

    An iterator waits for the thread that tunes it, which may sleep a minute.

    Args:
        batches: The pipeline.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)
