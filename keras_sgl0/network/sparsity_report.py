"""What is alive in a model."""

import dataclasses

from keras_sgl0.utils.tables import Report, as_text, new_table, out_of

_DROP = ("shape", "weights")  # in narrow terminals


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
class SparsityReport(Report):
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
        table = new_table()
        for header in ("kernel", "shape", "neurons", "weights", "density"):
            table.add_column(
                header,
                justify="left" if header in ("kernel", "shape") else "right",
                no_wrap=True,
            )
        for k in self.kernels:
            table.add_row(
                k.name,
                "x".join(map(str, k.shape)),
                out_of(k.groups_alive, k.groups),
                out_of(k.weights_alive, k.weights),
                f"{k.density:.2%}",
            )
        table.add_row(
            "other parameters",
            "",
            "",
            out_of(self.other_parameters_alive, self.other_parameters),
            "",
        )
        table.add_section()
        table.add_row(
            "kernels",
            "",
            out_of(sum(self.neurons_alive), self.neurons),
            out_of(self.kernel_weights_alive, self.kernel_weights),
            f"{1 - self.weight_sparsity_kernels:.2%}",
        )
        table.add_row(
            "all parameters",
            "",
            "",
            out_of(self.parameters_alive, self.parameters),
            f"{1 - self.weight_sparsity:.2%}",
        )
        summary = (
            f" weight sparsity {self.weight_sparsity:.2%} "
            f"(kernels alone {self.weight_sparsity_kernels:.2%}), "
            f"neuron sparsity {self.neuron_sparsity:.2%}"
        )
        return f"{as_text(table, width=100, drop=_DROP)}\n{summary}"


def _share_dead(alive: int, total: int) -> float:
    return 1 - alive / total
