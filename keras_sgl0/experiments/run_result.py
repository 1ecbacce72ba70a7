"""The result of a run: what `result.json` holds."""

import dataclasses
from typing import Any

from keras_sgl0.utils.tables import counted


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """The model after shrinking, or why it was not shrunk.

    Attributes:
        parameters: The number of parameters before.
        parameters_after: The number of parameters after.
        macs: The multiply-adds of one example before, `None` if unknown.
        macs_after: The multiply-adds after, `None` if unknown.
        relative_difference: The largest relative difference of an output.
        test_error: The error of the shrunk model, in percent.
        problem: Why the model was not shrunk. The rest is then `None`.
    """

    parameters: int | None = None
    parameters_after: int | None = None
    macs: int | None = None
    macs_after: int | None = None
    relative_difference: float | None = None
    test_error: float | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        values = dataclasses.asdict(self)
        problem = values.pop("problem")
        return values if problem is None else {"problem": problem}

    def summary(self, error: str) -> str:
        """Returns the sizes and the error, or why there are none, as text.

        Args:
            error: What `test_error` is called, such as "test error".
        """
        if self.problem is not None:
            return f"not shrunk: {self.problem}"
        return (
            f"shrunk from {self.parameters:,} -> {self.parameters_after:,} "
            f"parameters and {self.macs:,} -> {self.macs_after:,} MACs, "
            f"{error} {self.test_error:.2f}%"
        )


@dataclasses.dataclass(frozen=True)
class GateReading:
    """The model with its gates read in one way at test time.

    Attributes:
        architecture: The open gates of each layer, as in "20-18-37-467".
        test_error: The error of the model without gates, in percent.
    """

    architecture: str
    test_error: float | None = None


@dataclasses.dataclass(frozen=True)
class Ungated:
    """Sparsities that ignore the gates, in percent.

    Attributes:
        weight_sparsity_kernels: The share of zeros in the kernels.
        neuron_sparsity: The share of neurons without a weight.
    """

    weight_sparsity_kernels: float
    neuron_sparsity: float


@dataclasses.dataclass(frozen=True)
class GatesResult:
    """What the gates of a run leave.

    Attributes:
        architecture: The open gates of each layer, as in "20-18-37-467".
        parameters: The number of parameters that are gated.
        density: The expected density of the model, between 0 and 1.
        macs: The multiply-adds of the model for one example.
        macs_density: The share of them that is expected to be left.
        layers: The gates of each layer, as in `GateReport.to_dict()`.
        median: The gates read by their median.
        mean: The gates read by their mean.
        ungated: Sparsities that ignore the gates.
    """

    architecture: str
    parameters: int | None = None
    density: float | None = None
    macs: int | None = None
    macs_density: float | None = None
    layers: list[dict[str, Any]] | None = None
    median: GateReading | None = None
    mean: GateReading | None = None
    ungated: Ungated | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GatesResult":
        """Returns the gates that `to_dict` described."""
        values = dict(values)
        nested: dict[str, type] = {
            "median": GateReading,
            "mean": GateReading,
            "ungated": Ungated,
        }
        for name, kind in nested.items():
            if values.get(name) is not None:
                values[name] = kind(**values[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        values = _present(dataclasses.asdict(self))
        for name in ("median", "mean"):
            if name in values:
                values[name] = _present(values[name])
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run measured. Sparsities and errors are in percent.

    A field is `None` if the file does not have it, because the run is older
    than the field or does not measure it.

    Attributes:
        weight_sparsity: The share of zeros in all parameters.
        weight_sparsity_kernels: The share of zeros in the kernels.
        neuron_sparsity: The share of neurons without a weight.
        test_error: The error with small weights set to zero.
        weight_sparsity_unthresholded: The share of exact zeros in all
            parameters before small weights are set to zero.
        neuron_sparsity_unthresholded: The share of neurons without a weight,
            likewise.
        test_error_unthresholded: The error, likewise.
        best_test_error: The smallest error after any epoch.
        parameters: The number of parameters.
        neurons_alive: The number of neurons left in each layer.
        gates: What the gates leave, `None` without gates.
        recipe: The settings, as in `Recipe.to_dict()`.
        seed: The seed.
        epochs: The number of epochs.
        seconds: The training time.
        versions: The versions of what the result may depend on.
        report: The sparsities by layer, as in `SparsityReport.to_dict()`.
        shrunk: The model after shrinking.
        others: Keys of the file that are unknown here. They are kept, so that
            a file of a later version can be read and written.

    Example:
        >>> RunResult.from_dict(json.loads(text)).test_error
    """

    weight_sparsity: float
    weight_sparsity_kernels: float | None = None
    neuron_sparsity: float
    test_error: float
    weight_sparsity_unthresholded: float | None = None
    neuron_sparsity_unthresholded: float | None = None
    test_error_unthresholded: float | None = None
    best_test_error: float | None = None
    parameters: int | None = None
    neurons_alive: list[int] | None = None
    gates: GatesResult | None = None
    recipe: dict[str, Any]
    seed: int
    epochs: int | None = None
    seconds: float | None = None
    versions: dict[str, str] | None = None
    report: dict[str, Any] | None = None
    shrunk: Shrunk | None = None
    others: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunResult":
        """Returns the result that a file holds.

        Args:
            values: The content of `result.json`.

        Raises:
            KeyError: If a key is missing that every version writes.
            TypeError: If `values` is no dict, or a part of it is malformed.
            ValueError: If a sparsity or an error is not a number.
        """
        if not isinstance(values, dict):
            raise TypeError("a result is a JSON object")
        fields = [f for f in dataclasses.fields(cls) if f.name != "others"]
        names = {field.name for field in fields}
        known: dict[str, Any] = {n: v for n, v in values.items() if n in names}
        others = {n: v for n, v in values.items() if n not in names}
        for field in fields:
            if field.default is dataclasses.MISSING:
                known[field.name] = values[field.name]
        for name in ("weight_sparsity", "neuron_sparsity", "test_error"):
            float(known[name])
        if known.get("gates") is not None:
            known["gates"] = GatesResult.from_dict(known["gates"])
        if known.get("shrunk") is not None:
            known["shrunk"] = Shrunk(**known["shrunk"])
        return cls(**known, others=others)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON, without what is `None`."""
        fields = dataclasses.fields(self)
        values = _present({f.name: getattr(self, f.name) for f in fields})
        others = values.pop("others")
        for name in ("gates", "shrunk"):
            if name in values:
                values[name] = values[name].to_dict()
        return values | others

    @property
    def error_name(self) -> str:
        """What the errors are: on the test images, or on held-out ones."""
        held_out = self.recipe.get("validation")
        return "validation error" if held_out else "test error"

    def summary(self) -> str:
        """Returns the errors, the shrunk model and the time, as text."""
        error = self.error_name
        shrunk = self.shrunk or Shrunk(problem="an older run")
        return (
            f"{shrunk.summary(error)}\n"
            f"{error} {self.test_error:.2f}% thresholded, "
            f"{self.test_error_unthresholded:.2f}% not\n"
            f"{counted(self.epochs or 0, 'epoch')} in {self.seconds:.0f} s"
        )


def _present(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a dict without the entries that are `None`."""
    return {name: value for name, value in values.items() if value is not None}
