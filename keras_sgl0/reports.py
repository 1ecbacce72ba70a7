"""What this package reports: plain values that print as tables."""

import dataclasses
import io

import rich.box
import rich.console
import rich.table


@dataclasses.dataclass(frozen=True)
class KernelSparsity:
    """The counts of one kernel.

    Attributes:
        name: The variable's path, `layer/kernel`.
        shape: The kernel's shape.
        axis: The group axis, not negative.
        groups: The number of groups (neurons).
        groups_alive: How many of them are not dead.
        weights: The number of weights.
        weights_alive: How many of them are not zero.
    """

    name: str
    shape: tuple[int, ...]
    axis: int
    groups: int
    groups_alive: int
    weights: int
    weights_alive: int

    @property
    def density(self) -> float:
        """The share of weights that are not zero, in [0, 1]."""
        return self.weights_alive / self.weights


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """What is alive in a model, kernel by kernel and in total.

    `print(report)` shows a table, `to_dict()` gives plain numbers.

    Attributes:
        kernels: One entry a kernel.
        other_parameters: The number of trainable parameters in no kernel:
            biases, batch norm scales.
        other_parameters_alive: How many of them are not zero.
        tolerance: Below this a weight counts as zero.
    """

    kernels: tuple[KernelSparsity, ...]
    other_parameters: int
    other_parameters_alive: int
    tolerance: float

    @property
    def kernel_weights(self) -> int:
        """The number of weights in kernels."""
        return sum(k.weights for k in self.kernels)

    @property
    def kernel_weights_alive(self) -> int:
        """The number of kernel weights that are not zero."""
        return sum(k.weights_alive for k in self.kernels)

    @property
    def parameters(self) -> int:
        """The number of trainable parameters, biases included."""
        return self.kernel_weights + self.other_parameters

    @property
    def parameters_alive(self) -> int:
        """The number of trainable parameters that are not zero."""
        return self.kernel_weights_alive + self.other_parameters_alive

    @property
    def neurons(self) -> int:
        """The number of groups."""
        return sum(k.groups for k in self.kernels)

    @property
    def neurons_alive(self) -> tuple[int, ...]:
        """The number of groups that are not dead, one number a kernel."""
        return tuple(k.groups_alive for k in self.kernels)

    @property
    def weight_sparsity(self) -> float:
        """The share of zeros among all parameters, in [0, 1]."""
        return _share_dead(self.parameters_alive, self.parameters)

    @property
    def weight_sparsity_kernels(self) -> float:
        """The share of zeros among kernel weights alone, in [0, 1]."""
        return _share_dead(self.kernel_weights_alive, self.kernel_weights)

    @property
    def neuron_sparsity(self) -> float:
        """The share of dead groups, in [0, 1]."""
        return _share_dead(sum(self.neurons_alive), self.neurons)

    def to_dict(self) -> dict:
        """Returns the report as plain numbers, ready for JSON.

        Sparsities and densities are shares in [0, 1].
        """
        return {
            "kernels": [
                {
                    **dataclasses.asdict(kernel),
                    "shape": list(kernel.shape),
                    "density": kernel.density,
                }
                for kernel in self.kernels
            ],
            "parameters": self.parameters,
            "parameters_alive": self.parameters_alive,
            "kernel_weights": self.kernel_weights,
            "kernel_weights_alive": self.kernel_weights_alive,
            "neurons": self.neurons,
            "neurons_alive": list(self.neurons_alive),
            "weight_sparsity": self.weight_sparsity,
            "weight_sparsity_kernels": self.weight_sparsity_kernels,
            "neuron_sparsity": self.neuron_sparsity,
            "tolerance": self.tolerance,
        }

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_footer=False)
        for header in ("kernel", "shape", "neurons", "weights", "density"):
            justify = "left" if header in ("kernel", "shape") else "right"
            table.add_column(header, justify=justify, no_wrap=True)
        for k in self.kernels:
            table.add_row(
                k.name,
                "x".join(map(str, k.shape)),
                _alive(k.groups_alive, k.groups),
                _alive(k.weights_alive, k.weights),
                f"{k.density:.2%}",
            )
        others = (self.other_parameters_alive, self.other_parameters)
        table.add_row("other parameters", "", "", _alive(*others), "")
        table.add_section()
        for name, neurons, alive, total, sparsity in (
            (
                "kernels",
                _alive(sum(self.neurons_alive), self.neurons),
                self.kernel_weights_alive,
                self.kernel_weights,
                self.weight_sparsity_kernels,
            ),
            (
                "all parameters",
                "",
                self.parameters_alive,
                self.parameters,
                self.weight_sparsity,
            ),
        ):
            table.add_row(
                name, "", neurons, _alive(alive, total), f"{1 - sparsity:.2%}"
            )
        summary = (
            f" weight sparsity {self.weight_sparsity:.2%} "
            f"(kernels alone {self.weight_sparsity_kernels:.2%}), "
            f"neuron sparsity {self.neuron_sparsity:.2%}"
        )
        return f"{_text(table, width=100)}\n{summary}"


@dataclasses.dataclass(frozen=True)
class LayerEntry:
    """What `regularize` did to one kernel, or to one layer without any.

    Attributes:
        layer: The layer's name, after those of the layers it is part of.
        type: The layer's class.
        kernel: The name of the kernel, empty where the layer has none.
        shape: The kernel's shape.
        penalty: The penalty it carries now, empty where it was left alone.
        axis: The group axis of that penalty, `None` where it has none.
        note: Why the layer was left alone, or what to know about the penalty.
    """

    layer: str
    type: str
    kernel: str = ""
    shape: tuple[int, ...] = ()
    penalty: str = ""
    axis: int | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class RegularizationReport:
    """What carries a penalty in a model after `regularize`, and what does not.

    `print(report)` shows a table, `to_dict()` gives plain values.

    Attributes:
        entries: One entry a kernel, and one a layer without kernel, for every
            layer of the model, those of nested models and layers too.
    """

    entries: tuple[LayerEntry, ...]

    @property
    def regularized(self) -> tuple[LayerEntry, ...]:
        """The kernels that got the penalty."""
        return tuple(e for e in self.entries if e.penalty)

    @property
    def left_alone(self) -> tuple[LayerEntry, ...]:
        """The layers and kernels that did not, each with the reason."""
        return tuple(e for e in self.entries if not e.penalty)

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return {
            "layers": [
                {**dataclasses.asdict(entry), "shape": list(entry.shape)}
                for entry in self.entries
            ],
            "regularized": len(self.regularized),
            "left_alone": len(self.left_alone),
        }

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for header in ("layer", "type", "kernel", "axis", "penalty", "note"):
            table.add_column(header, overflow="fold", no_wrap=header != "note")
        for e in self.entries:
            table.add_row(
                e.layer,
                e.type,
                f"{e.kernel} {'x'.join(map(str, e.shape))}".strip(),
                "" if e.axis is None else str(e.axis),
                e.penalty,
                e.note,
            )
        summary = (
            f" {len(self.regularized)} kernels carry a penalty, "
            f"{len(self.left_alone)} layers or kernels were left alone"
        )
        return f"{_text(table, width=160)}\n{summary}"


def _share_dead(alive: int, total: int) -> float:
    return 1 - alive / total


def _alive(alive: int, total: int) -> str:
    return f"{alive:,} / {total:,}"


def _text(table: rich.table.Table, width: int) -> str:
    out = io.StringIO()
    rich.console.Console(file=out, width=width, markup=False).print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(filter(None, lines))
