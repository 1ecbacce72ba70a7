"""Lending variables another regularizer for the length of one `fit`."""

import keras


class LentRegularizer(keras.regularizers.Regularizer):
    """A regularizer that stands in for another one during training.

    Args:
        original: The regularizer it stands in for.
    """

    def __init__(self, original: keras.regularizers.Regularizer):
        self.original = original


class LendingCallback(keras.callbacks.Callback):
    """Base class of callbacks that lend variables a regularizer during `fit`.

    A subclass says in `lend` what a variable's regularizer is to be while the
    model trains. The layers' own attributes are left alone, so a model saved
    or cloned during `fit` carries the original. What makes lending delicate
    is that Keras traces a step once and keeps it; it is handled here:

    * The train step is traced anew when a `fit` begins and when it ends, else
      a second `fit` would run with the first one's regularizers.
    * Validation and any later `evaluate` see the original regularizers.
    * Where an exception ended a `fit`, the next one finds the original under
      the lent regularizer.
    """

    _loans: tuple = ()

    def lend(self, variable, original) -> LentRegularizer | None:
        """Returns the regularizer to lend, or `None` to leave the variable.

        Args:
            variable: A trainable variable of the model.
            original: Its regularizer, never `None`.
        """
        return None

    def refuse(self, originals: list) -> str:
        """Returns the error message for a model with nothing to lend to.

        Args:
            originals: The regularizers that the trainable variables have.
        """
        return f"Nothing to train in a model with the penalties {originals}."

    def on_train_begin(self, logs=None):
        """Lends the regularizers."""
        originals = []
        for variable in self.model.trainable_variables:
            original = variable.regularizer
            while isinstance(original, LentRegularizer):
                original = original.original
            variable.regularizer = original
            if original is not None:
                originals.append((variable, original))
        loans = [(v, self.lend(v, original)) for v, original in originals]
        self._loans = tuple((v, loan) for v, loan in loans if loan is not None)
        if not self._loans:
            raise ValueError(self.refuse([r for _, r in originals]))
        self._give()
        self.retrace()

    def on_train_end(self, logs=None):
        """Takes the regularizers back."""
        self._take_back()
        self._loans = ()
        self.retrace()

    def on_test_begin(self, logs=None):
        """Takes the regularizers back for a validation inside `fit`."""
        self._take_back()

    def on_test_end(self, logs=None):
        """Lends the regularizers again after a validation inside `fit`."""
        self._give()

    def retrace(self):
        """Makes Keras trace its steps anew, with what they now should read."""
        self.model.make_train_function(force=True)
        self.model.make_test_function(force=True)

    def _give(self):
        for variable, loan in self._loans:
            variable.regularizer = loan

    def _take_back(self):
        for variable, loan in self._loans:
            variable.regularizer = loan.original
