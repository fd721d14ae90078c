"""A program's grid laid over a PyTorch module and its optimizer: reads their tensors as integers, and writes them.

Spec: `specs/step-proof.md`, "Float training". A state tensor is a parameter by its name in `state_dict`, an entry of
the optimizer's state as `<parameter>.<entry>` (zero until the optimizer has made it), or neither: then it follows from
the program alone, such as the powers of Adam's betas.

Shows: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pot.errors import UsageError
from pot.zk.family import GridTensor, Step, family_of
from pot.zk.semantics.fixed import dequantise_array, quantise_array

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["Grid"]


class Grid:
    """Names which tensors of the module and the optimizer a program's state has."""

    def __init__(self, step: Step, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Raises `UsageError` where program and optimizer train different parameters, or one is not float32."""
        self._optimizer = optimizer
        known = dict(module.named_parameters())
        nodes = family_of(step).state_tensors
        self.parameters = {name: node for name, node in nodes.items() if name in known}
        self.entries = {
            name: node
            for name, node in nodes.items()
            if name not in known and name.rpartition(".")[0] in self.parameters
        }
        self.others = sorted(nodes.keys() - self.parameters.keys() - self.entries.keys())
        """Tensors of neither; they follow the program."""
        self._known = {name: known[name] for name in self.parameters}
        trained = {id(item) for group in optimizer.param_groups for item in group["params"]}
        for name, value in known.items():
            if (id(value) in trained) != (name in self.parameters):
                has = "trains a parameter that the program has not" if id(value) in trained else "does not train it"
                raise UsageError(f"{name}: the optimizer {has}; trace the step again with this module and optimizer")
        for name, node in self.parameters.items():
            _check(name, known[name], node)

    def read(self) -> dict[str, Ints]:
        """The nearest grid points of parameters and optimizer entries. Raises `Malformed` for NaN and infinities."""
        import numpy as np

        found = {name: _integers(name, self._known[name], node) for name, node in self.parameters.items()}
        for name, node in self.entries.items():
            value = self._entry(name)
            found[name] = np.zeros(node.shape, np.int64) if value is None else _integers(name, value, node)
        return found

    def write(self, state: Mapping[str, Ints]) -> None:
        """Put grid points into parameters and the entries that the optimizer has; `read` gives the same ones back."""
        for name, node in self.parameters.items():
            _put(self._known[name], state[name], node)
        for name, node in self.entries.items():
            value = self._entry(name)
            if value is not None:
                _put(value, state[name], node)

    def steps(self) -> int:
        """How many steps the optimizer says it has taken; 0 where it does not count."""
        return max((int(entries["step"]) for entries in self._optimizer.state.values() if "step" in entries), default=0)

    def _entry(self, name: str) -> Any:
        parameter, _, entry = name.rpartition(".")
        found = self._optimizer.state.get(self._known[parameter], {}).get(entry)
        if found is not None:
            _check(name, found, self.entries[name])
        return found


def _check(name: str, value: Any, node: GridTensor) -> None:
    if str(value.dtype) != "torch.float32" or list(value.shape) != list(node.shape):
        raise UsageError(
            f"{name}: is {value.dtype} {tuple(value.shape)}, the program has float32 {tuple(node.shape)} in its place"
        )


def _integers(name: str, value: Any, node: GridTensor) -> Ints:
    return quantise_array(value.detach().cpu().numpy(), node.bits, what=name)


def _put(target: Any, values: Ints, node: GridTensor) -> None:
    import torch

    with torch.no_grad():
        target.copy_(torch.from_numpy(dequantise_array(values, node.bits)))
