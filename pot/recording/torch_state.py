"""PyTorch's training state behind the recorder's seam: model, optimizer, scheduler, scaler.

Covered: parameters and buffers of `state_dict()`; every optimizer group and every entry of the optimizer's state, by
parameter name; the scheduler's and the gradient scaler's state. Not covered: buffers that are not persistent and
attributes outside `state_dict()`; a replay rebuilds them by running the program.

Hyper-parameters are never loaded: after a load, groups, schedule and scaler must equal what the program itself built.
A schedule is brought to its place by stepping the program's own scheduler, and then compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from pot.canonical import canonical_bytes, parse_canonical
from pot.commitments.state import TensorEntry
from pot.errors import Malformed, Refused, UsageError
from pot.recording.precommit import first_difference
from pot.recording.state import Component, read_components, write_components

if TYPE_CHECKING:
    import torch

__all__ = ["GROUPS_ENTRY", "TorchState"]

GROUPS_ENTRY: Final = "pot.groups"
"""The optimizer tensor (U8) that holds groups and scalar state as canonical JSON, so that one file is the component."""

_MAX_GROUPS_BYTES: Final = 64 << 20
_MAX_SCHEDULE_STEPS: Final = 10_000_000  # a hostile checkpoint must not make the replayer step for ever


class TorchState:
    """A `StateSource` over PyTorch objects. Raises `UsageError` for an optimizer with parameters outside the model."""

    def __init__(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, scheduler: Any = None, scaler: Any = None
    ) -> None:
        self.model = model
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
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        if optimizer is not None:
            for _, parameter in self._parameters():
                if id(parameter) not in self._names:
                    raise UsageError(
                        "record: the optimizer holds a parameter that the model does not have; give the whole model"
                    )

        # unknown is taken as yes: no optimizer, one without hooks, or a scaler that may leave the first steps out
        self.has_stepped = optimizer is None or scaler is not None or not hasattr(optimizer, "register_step_post_hook")
        """Whether the optimizer has stepped since this was made; the recorder asks after the first batch."""
        if optimizer is not None and not self.has_stepped:
            optimizer.register_step_post_hook(self._stepped)

    def _stepped(self, *_: Any) -> None:
        self.has_stepped = True

    def capture(self) -> dict[str, Component]:
        """The components now; tensors on the CPU are views, not copies."""
        components: dict[str, Component] = {"model": self._model_entries()}
        if self.optimizer is not None:
            components["optimizer"] = self._optimizer_entries()
        if self.scheduler is not None:
            components["scheduler"] = _tagged(self.scheduler.state_dict(), "scheduler")
        if self.scaler is not None:
            components["scaler"] = _tagged(self.scaler.state_dict(), "scaler")
        return components

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`, `optimizer.safetensors` and, where there are, `scheduler.json`, `scaler.json`."""
        write_components(folder, self.capture())

    def load(self, folder: Path) -> None:
        """Load tensors; refuse hyper-parameters unlike the program's own. Raises `Refused`, `Malformed`."""
        names = [
            name
            for name, part in (("model", self.model), ("optimizer", self.optimizer), ("scheduler", self.scheduler),
                               ("scaler", self.scaler))
            if part is not None
        ]  # fmt: skip
        components = read_components(folder, names)
        self._load_model(_entries(components["model"], folder))
        if self.optimizer is not None:
            entries = {entry.name: entry for entry in _entries(components["optimizer"], folder)}
            document = self._load_optimizer(entries, folder)
            if self.scheduler is not None:
                self._load_scheduler(components["scheduler"], folder)
            _same(document["groups"], self._groups(), f"{folder}: optimizer groups")
        if self.scaler is not None:
            self._load_scaler(components["scaler"], folder)

    def _parameters(self) -> Iterator[tuple[int, torch.Tensor]]:
        if self.optimizer is not None:
            for number, group in enumerate(self.optimizer.param_groups):
                for parameter in group["params"]:
                    yield number, parameter

    def _model_entries(self) -> list[TensorEntry]:
        import torch

        entries = []
        for name, value in sorted(self.model.state_dict().items()):
            if not isinstance(value, torch.Tensor):
                raise UsageError(
                    f"record: the model's state {name!r} is not a tensor; extra state cannot be committed to"
                )
            entries.append(_entry(name, value))
        return entries

    def _groups(self) -> list[JsonValue]:
        groups: list[JsonValue] = []
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            described: dict[str, JsonValue] = {
                key: _tagged(value, f"optimizer group {key}") for key, value in group.items() if key != "params"
            }
            described["params"] = [self._names[id(parameter)] for parameter in group["params"]]
            groups.append(described)
        return groups

    def _optimizer_entries(self) -> list[TensorEntry]:
        import torch

        entries: list[TensorEntry] = []
        scalars: dict[str, JsonValue] = {}
        state = self.optimizer.state if self.optimizer is not None else {}
        for _, parameter in self._parameters():
            name = self._names[id(parameter)]
            for key, value in state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    entries.append(_entry(f"state.{name}/{key}", value))
                else:
                    scalars[f"{name}/{key}"] = _tagged(value, f"optimizer state {name}/{key}")
        document = canonical_bytes({"groups": self._groups(), "scalars": scalars})
        entries.append(TensorEntry(GROUPS_ENTRY, "U8", (len(document),), document))
        return sorted(entries, key=lambda entry: entry.name)

    def _load_model(self, entries: list[TensorEntry]) -> None:
        import torch

        own = self.model.state_dict()
        if own.keys() != {entry.name for entry in entries}:
            raise Refused("checkpoint: the model's tensors are not those of the program's model")
        with torch.no_grad():
            for entry in entries:
                tensor = _tensor(entry)
                if own[entry.name].shape != tensor.shape or own[entry.name].dtype != tensor.dtype:
                    raise Refused(
                        f"checkpoint: tensor {entry.name!r} has another shape or dtype than the program's model"
                    )
                own[entry.name].copy_(tensor)

    def _load_optimizer(self, entries: dict[str, TensorEntry], folder: Path) -> dict[str, Any]:
        if self.optimizer is None or GROUPS_ENTRY not in entries:
            raise Malformed(f"{folder}: the optimizer's groups are missing")
        document = parse_canonical(bytes(entries.pop(GROUPS_ENTRY).data), what=f"{folder}: {GROUPS_ENTRY}",
                                   limit=_MAX_GROUPS_BYTES)  # fmt: skip
        if not isinstance(document, dict) or set(document) != {"groups", "scalars"}:
            raise Malformed(f"{folder}: {GROUPS_ENTRY} must hold groups and scalars")
        if not isinstance(document["scalars"], dict):
            raise Malformed(f"{folder}: {GROUPS_ENTRY}: scalars must be an object")
        parameters = {self._names[id(parameter)]: parameter for _, parameter in self._parameters()}
        fresh: dict[Any, dict[str, Any]] = {}
        for full, entry in entries.items():
            name, _, key = full.removeprefix("state.").rpartition("/")
            parameter = _known(parameters, name, folder)
            tensor = _tensor(entry)
            # PyTorch keeps step counters of non-capturable optimizers on the CPU
            fresh.setdefault(parameter, {})[key] = tensor if tensor.dim() == 0 else tensor.to(parameter.device)
        for full, value in document["scalars"].items():
            name, _, key = full.rpartition("/")
            fresh.setdefault(_known(parameters, name, folder), {})[key] = _untagged(value, f"{folder}: {full[:64]}")
        self.optimizer.state.clear()
        self.optimizer.state.update(fresh)
        return document

    def _load_scheduler(self, recorded: Component, folder: Path) -> None:
        wanted = recorded.get("last_epoch") if isinstance(recorded, dict) else None
        own = self.scheduler.state_dict().get("last_epoch")
        if not isinstance(wanted, int) or not isinstance(own, int):
            raise Refused(f"{folder}: a scheduler that does not count its steps cannot be resumed or replayed")
        if not 0 <= wanted - own <= _MAX_SCHEDULE_STEPS:
            raise Refused(f"{folder}: the scheduler stands at {own}, it cannot be stepped to {wanted}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "scheduler before optimizer": the optimizer's steps lie before the resume
            for _ in range(wanted - own):
                self.scheduler.step()
        _same(recorded, _tagged(self.scheduler.state_dict(), "scheduler"), f"{folder}: scheduler")

    def _load_scaler(self, recorded: Component, folder: Path) -> None:
        own = self.scaler.state_dict()
        if not isinstance(recorded, dict) or recorded.keys() != own.keys():
            raise Refused(f"{folder}: the gradient scaler is not the program's")
        for key in ("scale", "_growth_tracker"):  # the only parts that training changes
            if key in own:
                own[key] = _untagged(recorded[key], f"{folder}: scaler {key}")
        if own:
            self.scaler.load_state_dict(own)
        _same(recorded, _tagged(self.scaler.state_dict(), "scaler"), f"{folder}: scaler")


def _known(parameters: Mapping[str, Any], name: str, folder: Path) -> Any:
    if name not in parameters:
        raise Refused(f"{folder}: the optimizer's state names {name[:64]!r}, which the program's does not hold")
    return parameters[name]


def _same(recorded: Any, own: Any, what: str) -> None:
    difference = first_difference(recorded, own)
    if difference is not None:
        raise Refused(f"{what} are not the program's own: {difference}")


def _entries(component: Component, folder: Path) -> list[TensorEntry]:
    if not isinstance(component, list):
        raise Malformed(f"{folder}: tensors expected, a JSON object found")
    return [item for item in component if isinstance(item, TensorEntry)]


def _entry(name: str, tensor: torch.Tensor) -> TensorEntry:
    import torch

    shape = tuple(tensor.shape)
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return TensorEntry(name, _dtype_name(tensor.dtype), shape, memoryview(array))


def _tensor(entry: TensorEntry) -> torch.Tensor:
    import torch

    kind = next((dtype for dtype, name in _dtypes().items() if name == entry.dtype), None)
    if kind is None:
        raise Malformed(f"tensor {entry.name[:64]!r}: dtype {entry.dtype} is not one that training uses")
    if not len(entry.data):
        return torch.empty(entry.shape, dtype=kind)
    return torch.frombuffer(bytearray(entry.data), dtype=kind).reshape(entry.shape)


def _dtypes() -> dict[Any, str]:
    import torch

    return {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
        torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip


def _dtype_name(dtype: Any) -> str:
    name = _dtypes().get(dtype)
    if name is None:
        raise UsageError(f"record: tensors of dtype {dtype} cannot be committed to yet")
    return name


def _tagged(value: Any, what: str) -> JsonValue:
    """A JSON value that tells 1 from 1.0: reals as {"real": repr}, tuples as lists, keys as strings."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) <= 2**53 else {"integer": str(value)}
    if isinstance(value, float):
        return {"real": repr(value)}
    if isinstance(value, Mapping):
        return {str(key): _tagged(item, f"{what}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tagged(item, what) for item in value]
    if hasattr(value, "item") and getattr(value, "numel", lambda: 0)() == 1:  # lr may be a tensor
        return {"tensor": str(value.dtype), "value": _tagged(value.item(), what)}
    raise UsageError(f"record: {what} is a {type(value).__name__}, which cannot be committed to")


def _untagged(value: Any, what: str) -> Any:
    if isinstance(value, dict):
        if set(value) == {"real"} and isinstance(value["real"], str):
            try:
                return float(value["real"])
            except ValueError:
                raise Malformed(f"{what}: not a number") from None
        raise Malformed(f"{what}: not a number, text or nothing")
    return value
