"""Crops and mirrors images, the same for the same seeds."""

import math

from keras_sgl0.utils.extras import name_extra

with name_extra():
    import tensorflow as tf

_PADDING = 4


def draw_moves(number, seeds, flip: bool):
    """Returns where to crop each image and whether to mirror it.

    A row for each image: the first row and column of the crop, and 0 or 1. It
    depends only on the seeds and the index of the image.

    Args:
        number: How many images there are.
        seeds: Two integers.
        flip: Whether to mirror.
    """
    places = (2 * _PADDING + 1, 2 * _PADDING + 1, 1 + flip)
    draws = tf.random.stateless_uniform(
        (number,),
        tf.random.fold_in(seeds, 1),  # independent of the shuffling
        maxval=math.prod(places),
        dtype=tf.int32,
    )
    return tf.transpose(tf.unravel_index(draws, places))


def moved(images, moves):
    """Returns images padded with zeros, cropped and mirrored.

    Args:
        images: Images of shape `(batch, height, width, channels)`.
        moves: The rows of `draw_moves` for these images, of shape `(batch, 3)`.
    """
    height, width = images.shape[1:3]
    sides = [_PADDING, _PADDING]
    padded = tf.pad(images, [[0, 0], sides, sides, [0, 0]])
    rows = moves[:, 0, None] + tf.range(height)
    columns = tf.range(width)
    mirrored = tf.where(moves[:, 2, None] == 1, columns[::-1], columns)
    columns = moves[:, 1, None] + mirrored
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)
