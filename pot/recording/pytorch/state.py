"""PyTorch's training state behind the recorder's seam: model, optimizer, scheduler, scaler.

Covered: parameters and buffers of `state_dict()`; every optimizer group and every entry of the optimizer's state, by
parameter name; the scheduler's and the gradient scaler's state. Not covered: buffers that are not persistent and
attributes outside `state_dict()`; a replay rebuilds them by running the program.

With `frozen_apart`, parameters that no optimizer holds and that need no gradient are a component of their own, hashed
at the start and at the end only, and never written: the base of an adapter is what the program loads again.

Of a distributed run, `capture` gives what this process holds: everything (DDP), or its rows (FSDP2; see
`pot.recording.pytorch.rows`); `shared` gives what all processes must hold alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from pot.canonical import canonical_bytes
from pot.commitments.sharded import ROWED
from pot.commitments.state import TensorEntry
from pot.errors import UsageError
from pot.recording.pytorch.rows import Rows, broadcasts_buffers, is_cut, sharding_of, unwrapped
from pot.recording.pytorch.tensors import GROUPS_ENTRY, entry, tagged
from pot.recording.state import Component, read_components

if TYPE_CHECKING:
    import torch

__all__ = ["GROUPS_ENTRY", "TorchState"]

_Named = list[tuple[str, Any]]


class TorchState:
    """A `StateSource` over PyTorch objects. Raises `UsageError` for an optimizer with parameters outside the model."""

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        scheduler: Any = None,
        scaler: Any = None,
        *,
        frozen_apart: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`rank`, `world`: of the processes that hold the model together."""
        self.skips_buffers = broadcasts_buffers(model)
        self.model = model = unwrapped(model)
        self.rows = Rows(rank, world) if world > 1 and sharding_of(model) == "rows" else None
        """How the state is cut; None where this process holds it whole."""
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scaler = scaler
        if scheduler is not None and (
            type(scheduler).__name__ == "ReduceLROnPlateau" or "last_epoch" not in scheduler.state_dict()
        ):
            raise UsageError(
                f"record: a {type(scheduler).__name__} does not follow from the number of steps alone, it could not be"
                " resumed or replayed; use a scheduler that counts its steps"
            )
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        held = set()
        for _, parameter in self.parameters():
            if id(parameter) not in self.names:
                raise UsageError(
                    "record: the optimizer holds a parameter that the model does not have; give the whole model"
                )
            held.add(id(parameter))
        self.frozen_names: frozenset[str] = frozenset()
        """Entries of `state_dict()` that make the component `frozen`."""
        if frozen_apart:
            self.frozen_names = frozenset(
                name
                for name, parameter in model.named_parameters(remove_duplicate=False)
                if id(parameter) not in held and not parameter.requires_grad
            )
        self._buffers: dict[str, Any] = {}
        self.optimizer_steps: int | None = None
        """Steps of the optimizer since this was made; None where they cannot be counted."""
        if optimizer is not None and hasattr(optimizer, "register_step_post_hook"):
            self.optimizer_steps = 0
            optimizer.register_step_post_hook(self._stepped)

    def _stepped(self, *_: Any) -> None:
        self.optimizer_steps = (self.optimizer_steps or 0) + 1

    @property
    def in_place(self) -> bool:
        """Whether all tensors lie in the CPU's memory, so that `capture` copies none of them."""
        return all(value.device.type == "cpu" for _, value in self.own(self._model_tensors(frozen=False)))

    def capture(self) -> dict[str, Component]:
        """The components now, without `frozen`; tensors on the CPU are views, not copies."""
        return self._components(lambda _, named: named)

    def snapshot(self) -> dict[str, Component]:
        """The components now, without `frozen`, in buffers that are used again by the next call."""
        return self._components(self._copied)

    def frozen(self) -> Component:
        """The tensors of `frozen_names`."""
        return [entry(name, value) for name, value in self.own(self._model_tensors(frozen=True))]

    def shared(self) -> dict[str, Component]:
        """What must be the same in every process, by component; buffers that DDP replaces by the first's are not."""
        held = self._components(lambda _, named: self._whole(named), whole=True)
        model = held["model"]
        if self.skips_buffers and isinstance(model, list):
            parameters = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
            held["model"] = [item for item in model if isinstance(item, TensorEntry) and item.name in parameters]
        return held

    def _whole(self, named: _Named) -> _Named:
        """The tensors that this process holds whole."""
        return [(name, Rows().own(value)) for name, value in named if self.rows is None or not is_cut(value)]

    def own(self, named: _Named) -> _Named:
        """This process's part of each tensor, ordinary tensors all; those of which it holds nothing are left out."""
        rows = self.rows or Rows()
        found = [(name, rows.own(value)) for name, value in named]
        return [(name, value) for name, value in found if value is not None]

    def load(self, folder: Path) -> None:
        """Load tensors; refuse hyper-parameters unlike the program's own. Raises `Refused`, `Malformed`."""
        from pot.recording.pytorch.load import load

        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler}
        cut = ROWED if self.rows is not None else frozenset()
        names = [name for name, part in parts.items() if part is not None and name not in cut]
        load(self, read_components(folder, names), folder)

    def parameters(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The optimizer's parameters, each with the number of its group."""
        for number, group in enumerate(self.optimizer.param_groups if self.optimizer is not None else ()):
            for parameter in group["params"]:
                yield number, parameter

    def groups(self) -> list[JsonValue]:
        """The optimizer's groups, parameters by name."""
        groups: list[JsonValue] = []
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            described: dict[str, JsonValue] = {
                key: tagged(value, f"optimizer group {key}") for key, value in group.items() if key != "params"
            }
            described["params"] = [self.names[id(parameter)] for parameter in group["params"]]
            groups.append(described)
        return groups

    def moved(self, first: list[JsonValue]) -> str | None:
        """How the optimizer's options left those of the `first` groups without a scheduler; None where they did not."""
        from pot.recording.pytorch.moved import moved

        return moved(self, first)

    def _components(self, taken: Any, *, whole: bool = False) -> dict[str, Component]:
        own = (lambda named: named) if whole else self.own
        model = taken("model", own(self._model_tensors(frozen=False)))
        components: dict[str, Component] = {"model": [entry(name, value) for name, value in model]}
        if self.optimizer is not None:
            named, scalars = self._optimizer_state()
            described: dict[str, JsonValue] = {"groups": self.groups(), "scalars": scalars}
            if self.rows is not None:
                described["rows"] = {name: list(value.shape) for name, value in named if is_cut(value)}
            document = canonical_bytes(described)
            entries = [entry(name, value) for name, value in taken("optimizer", own(named))]
            if self.rows is None:
                entries.append(TensorEntry(GROUPS_ENTRY, "U8", (len(document),), document))
            elif whole or self.rows.rank == 0:  # one row, which is the first process's
                entries.append(TensorEntry(GROUPS_ENTRY, "U8", (1, len(document)), document))
            components["optimizer"] = sorted(entries, key=lambda item: item.name)
        if self.scheduler is not None:
            components["scheduler"] = tagged(self.scheduler.state_dict(), "scheduler")
        if self.scaler is not None:
            components["scaler"] = tagged(self.scaler.state_dict(), "scaler")
        return components

    def _model_tensors(self, *, frozen: bool) -> _Named:
        import torch

        named = []
        for name, value in sorted(self.model.state_dict().items()):
            if not isinstance(value, torch.Tensor):
                raise UsageError(
                    f"record: the model's state {name!r} is not a tensor; extra state cannot be committed to"
                )
            if (name in self.frozen_names) == frozen:
                named.append((name, value))
        return named

    def _optimizer_state(self) -> tuple[_Named, dict[str, JsonValue]]:
        """The tensors of the optimizer's state, and what is beside them."""
        import torch

        named: _Named = []
        scalars: dict[str, JsonValue] = {}
        state: Mapping[Any, Any] = self.optimizer.state if self.optimizer is not None else {}
        for _, parameter in self.parameters():
            for key, value in state.get(parameter, {}).items():
                place = f"{self.names[id(parameter)]}/{key}"
                if isinstance(value, torch.Tensor):
                    named.append((f"state.{place}", value))
                elif isinstance(value, (list, tuple)):  # LBFGS keeps its history so
                    items: list[JsonValue] = []
                    for at, item in enumerate(value):
                        if isinstance(item, torch.Tensor):
                            named.append((f"state.{place}#{at}", item))
                            items.append({"entry": f"state.{place}#{at}"})
                        else:
                            items.append(tagged(item, f"optimizer state {place}"))
                    scalars[place] = {"list": items}
                else:
                    scalars[place] = tagged(value, f"optimizer state {place}")
        return named, scalars

    def _copied(self, component: str, named: _Named) -> _Named:
        """The tensors in buffers of this component, made once for each name and shape and used again."""
        import torch

        buffers = []
        for name, value in named:
            key = f"{component}/{name}"
            held = self._buffers.get(key)
            if held is None or held.shape != value.shape or held.dtype != value.dtype:
                pinned = value.device.type == "cuda"
                held = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=pinned)
                self._buffers[key] = held
            buffers.append(held)
        if named:
            with torch.no_grad():
                torch._foreach_copy_(buffers, [value.detach() for _, value in named], non_blocking=True)
            if any(value.device.type == "cuda" for _, value in named):
                torch.cuda.synchronize()
        return [(name, held) for (name, _), held in zip(named, buffers, strict=True)]
