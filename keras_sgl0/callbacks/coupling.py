"""Group penalties on structures instead of slices of one kernel."""

from typing import Any, Literal

import numpy as np
from keras import ops

from keras_sgl0.callbacks.joint_penalty import JointPenalty
from keras_sgl0.callbacks.lending import (
    LendingCallback,
    LentPenalty,
    penalty_of,
)
from keras_sgl0.regularizers import Penalty
from keras_sgl0.structures.families import Structures, structures
from keras_sgl0.structures.members import Members
from keras_sgl0.utils.validation import InputError, boolean, choice, require

Weight = Literal["size", "macs", "parameters"]
Inside = Literal["all", "heads", "dimensions"]


class CoupledPart(LentPenalty, Penalty):
    """One variable's part in a penalty on structures.

    It is a `Penalty` to the callbacks that come after. The value of the joint
    penalty stands on one of the variables, the host; its gradient flows to
    all members.

    Args:
        rest: The layer's own regularizer, which stays; `None` without one.
        coupling: The joint penalty of all variables.
        variable: The variable.
        is_host: Whether it carries the value of the joint penalty.
    """

    def __init__(self, rest, coupling, variable, is_host):
        super().__init__(rest)
        self.rest = rest
        self.coupling = coupling
        self.variable = variable
        self.is_host = is_host
        self.element = coupling.element_of(variable)
        # All of the joint penalty on the host, nothing elsewhere.
        self.group: Any = self._joint
        self.factor = coupling.penalty.factor
        self.ranks_by = coupling.penalty.ranks_by
        self.has_subgradient = coupling.penalty.has_subgradient

    @property
    def has_prox(self):
        """Whether the joint proximal operator is known."""
        return not self.coupling.why_no_prox

    def _joint(self, w):
        if self.is_host:
            return self.coupling.value()
        return ops.zeros((), self.coupling.members.dtype)

    def value(self, w):
        """Returns the penalty of `w` without the regularizer beside it."""
        value = self._joint(w)
        return value if self.element is None else value + self.element(w)

    def prox(self, w, step):
        """Returns this variable's part of the joint proximal operator."""
        return self.coupling.prox(self.variable, w, step)


class CoupledGroups(LendingCallback):
    r"""Puts a group penalty on structures: on what can be cut together.

    A penalty that is the `kernel_regularizer` of a layer has slices of one
    kernel as its groups. But a channel of a residual stream goes only if every
    kernel that adds to it lets it go, and batch normalization scales up again
    what a penalty made small. This callback puts the penalty on the whole
    structure `s` (see `structures`), whose members are the output slices of
    the kernels that make the channel, their biases, and the gammas and betas
    of normalizations:

    `factor * sum_s sqrt(|s|) * ||W_s||_2` for `GroupLasso(factor)`,

    and likewise for every other group penalty. The gradient flows to all
    members, and the proximal step scales all of them at once. Dead means zero
    in all members, so `shrink` cuts the channel exactly.

    Give it the penalty and put it first; the layers need none:

    * alone, the penalty is trained by its subgradient;
    * `VariableSplitting` or `ADMM` behind it train the part on single weights,
      which stays on each kernel;
    * `ProximalStep` behind it takes the joint proximal step, with exact zeros;
    * `TargetDensity` behind these makes it meet a budget of the model that
      `shrink` leaves.

    A regularizer of the layers that is not of this package, such as `L2`,
    stays. The penalty is there during `fit`; a saved model does not have it.
    What is frozen cannot go, so a structure with a frozen member has no
    penalty. As `fit` ends, the moving means of dead channels are set to zero
    where a batch normalization has no gamma.

    Args:
        penalty: A group penalty or a sum with one, e.g. `GroupLasso(1e-4)`,
            `SGL0(1e-5)`. Its `axis` has no meaning here.
        readers: Whether the slices of the kernels that read a channel are
            members too. Then a weight of a kernel between two families
            belongs to two structures.
        weight: What a structure counts: `"size"`, as the penalty has it, with
            `sqrt(|s|)` in `GroupLasso`; `"macs"` or `"parameters"`, this
            times what the structure costs, over the mean of all structures.
        inside: What has the penalty inside of attention layers: `"all"`, or
            `"heads"` or `"dimensions"` alone. A weight of a projection is in a
            head and in a dimension. These are rows and columns of one matrix;
            neither is part of the other, so that one step after the other is
            not the proximal step of their sum. `ProximalStep` wants one kind.

    Attributes:
        structures: The `Structures` of the model, `None` before `fit`.

    Raises:
        ValueError: If an argument cannot be used; when `fit` begins, if the
            model cannot be traced, or has no structures or only frozen ones, or
            if a variable of one has a penalty of this package already.

    Example:
        >>> model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
        >>> model.fit(
        ...     images,
        ...     labels,
        ...     callbacks=[
        ...         ks.CoupledGroups(ks.GroupLasso(1e-4)),
        ...         ks.ProximalStep(),
        ...         ks.TargetDensity(0.5, of="macs"),
        ...     ],
        ... )
        >>> small, report = ks.shrink(model)

    Reference:
        Bui et al., arXiv 1912.07868, eq. 1, for the penalty on one kernel.
    """

    def __init__(
        self,
        penalty: Penalty,
        readers: bool = False,
        weight: Weight = "size",
        inside: Inside = "all",
    ):
        super().__init__()
        require(
            isinstance(penalty, Penalty) and penalty.group is not None,
            "penalty",
            "a penalty with a part on groups, such as `GroupLasso` or `SGL0`",
            penalty,
        )
        self.penalty = penalty
        self.readers = boolean("readers", readers)
        self.weight = choice("weight", weight, ("size", "macs", "parameters"))
        self.inside = choice("inside", inside, ("all", "heads", "dimensions"))
        # Made when `fit` begins.
        self.structures: Structures | None = None
        self._joint: Any = None

    def survey(self, transfer=None):
        """Finds the structures and their members."""
        found = structures(self.model)
        require(
            found.size > 0,
            "model",
            "a model with channels that can be cut",
            self.model,
        )
        self.structures = found
        members = Members(found, self.readers, self._wanted(found))
        require(
            members.removable.any(),
            "model",
            "a model with a structure of which all members can be trained",
            self.model,
        )
        if transfer is not None:
            self._joint = self._joint.following(transfer, members)
            return
        self._joint = JointPenalty(
            self.model, members, self.penalty, self._weights(found)
        )

    def lend(self, variable, original):
        """Returns a variable's part in the joint penalty."""
        joint = self._joint
        members = joint.members
        if joint.element_of(variable) is None and not members.of(variable):
            return {}
        if penalty_of(variable) is not None:
            raise InputError(
                f"`CoupledGroups` cannot couple {variable.path}, which has a "
                "penalty of its own. Leave out that penalty or the callback. "
                f"Received: {penalty_of(variable)!r}"
            )
        is_host = variable is members.variables[0]
        part = CoupledPart(original, joint, variable, is_host)
        return {"regularizer": part}

    def on_train_end(self, logs=None):
        """Takes the penalty back; what is dead gets a mean of zero."""
        super().on_train_end(logs)
        if self.structures is not None:
            members = self._joint.members
            dead = ops.convert_to_numpy(members.norms()) == 0
            members.zero(dead)

    def _wanted(self, found) -> np.ndarray:
        """Returns which structures have the penalty."""
        flags = np.ones(found.size + 1, bool)  # the last one is for -1
        for entry in found.variables if self.inside != "all" else ():
            for sliced in entry.along("member"):
                if sliced.label and not sliced.label.endswith(self.inside):
                    flags[sliced.structures] = False
        return flags[:-1]

    def _weights(self, found) -> np.ndarray:
        """Returns by what the penalty of each family is multiplied."""
        if self.weight == "size":
            return np.ones(len(found.counts))
        require(
            self.weight != "macs" or found.cost().macs is not None,
            "weight",
            '"size" or "parameters", as the sizes of the inputs are not known',
            self.weight,
        )
        saved = found.savings(self.weight).astype("float64")
        return saved * found.size / (saved @ found.counts)
