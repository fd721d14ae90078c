"""Putting a checkpoint's state back into PyTorch objects: tensors are loaded, hyper-parameters only compared.

After a load, groups, schedule and scaler must equal what the program itself built. A schedule is brought to its place
by stepping the program's own scheduler, and then compared.

Shows: nothing. Does not do: take a learning rate, or anything else that steers training, from a checkpoint (A02).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pot.canonical import parse_canonical
from pot.commitments.state import TensorEntry
from pot.errors import Malformed, Refused
from pot.recording.config import first_difference
from pot.recording.pytorch.moved import RULE
from pot.recording.pytorch.row_files import RowFiles, load_model_rows, state_tensors
from pot.recording.pytorch.rows import Rows
from pot.recording.pytorch.tensors import GROUPS_ENTRY, tagged, tensor, untagged
from pot.recording.state import Component

if TYPE_CHECKING:
    from pot.recording.pytorch.state import TorchState

__all__ = ["load"]

_MAX_GROUPS_BYTES: Final = 64 << 20
_MAX_SCHEDULE_STEPS: Final = 10_000_000  # a hostile checkpoint must not make the replayer step for ever


def load(source: TorchState, components: Mapping[str, Component], folder: Path) -> None:
    """Load the components of `folder` into the source's objects. Raises `Refused`, `Malformed`.

    `components`: what was read of them; a source that holds rows reads model and optimizer itself.
    """
    if source.rows is not None:
        load_model_rows(source, source.rows, folder)
    else:
        _load_model(source, _entries(components["model"], folder))
    if source.optimizer is not None:
        if source.rows is not None:
            groups = _load_optimizer_rows(source, source.rows, folder)
        else:
            groups = _load_optimizer(source, _entries(components["optimizer"], folder), folder)
        if source.scheduler is not None:
            _load_scheduler(source.scheduler, components["scheduler"], folder)
        _same(groups, source.groups(), f"{folder}: optimizer groups", RULE)
    if source.scaler is not None:
        _load_scaler(source.scaler, components["scaler"], folder)


def _load_model(source: TorchState, entries: list[TensorEntry]) -> None:
    import torch

    own = {name: value for name, value in source.model.state_dict().items() if name not in source.frozen_names}
    if own.keys() != {item.name for item in entries}:
        raise Refused("checkpoint: the model's tensors are not those of the program's model")
    with torch.no_grad():
        for item in entries:
            value = tensor(item)
            if own[item.name].shape != value.shape or own[item.name].dtype != value.dtype:
                raise Refused(f"checkpoint: tensor {item.name!r} has another shape or dtype than the program's model")
            own[item.name].copy_(value)


def _load_optimizer(source: TorchState, entries: list[TensorEntry], folder: Path) -> Any:
    """Load the optimizer's state; returns the recorded groups, which are compared when the schedule is in place."""
    tensors = {item.name: item for item in entries}
    if GROUPS_ENTRY not in tensors:
        raise Malformed(f"{folder}: the optimizer's groups are missing")
    document = _described(tensors.pop(GROUPS_ENTRY), {"groups", "scalars"}, folder)
    _put_state(source, {name: tensor(item) for name, item in tensors.items()}, document, folder)
    return document["groups"]


def _load_optimizer_rows(source: TorchState, rows: Rows, folder: Path) -> Any:
    files = RowFiles(folder, "optimizer", rows)
    document = _described(files.first(GROUPS_ENTRY), {"groups", "rows", "scalars"}, folder)
    parameters = {source.names[id(parameter)]: parameter for _, parameter in source.parameters()}
    names = [name for name in files.names() if name != GROUPS_ENTRY]
    _put_state(source, state_tensors(files, rows, document["rows"], parameters, names), document, folder)
    return document["groups"]


def _described(item: TensorEntry, keys: set[str], folder: Path) -> dict[str, Any]:
    what = f"{folder}: {GROUPS_ENTRY}"
    document = parse_canonical(bytes(item.data), what=what, limit=_MAX_GROUPS_BYTES)
    if not isinstance(document, dict) or set(document) != keys:
        raise Malformed(f"{what} must hold {', '.join(sorted(keys))}")
    for name in keys - {"groups"}:
        if not isinstance(document[name], dict):
            raise Malformed(f"{what}: {name} must be an object")
    return document


def _put_state(source: TorchState, tensors: Mapping[str, Any], document: dict[str, Any], folder: Path) -> None:
    parameters = {source.names[id(parameter)]: parameter for _, parameter in source.parameters()}
    fresh: dict[Any, dict[str, Any]] = {}
    listed: dict[str, Any] = {}
    for full, value in tensors.items():
        name, _, key = full.removeprefix("state.").rpartition("/")
        parameter = _known(parameters, name, folder)
        # PyTorch keeps step counters of non-capturable optimizers on the CPU
        value = value if value.dim() == 0 else value.to(parameter.device)
        if "#" in key:
            listed[full] = value
        else:
            fresh.setdefault(parameter, {})[key] = value
    for full, value in document["scalars"].items():
        name, _, key = full.rpartition("/")
        parameter = _known(parameters, name, folder)
        fresh.setdefault(parameter, {})[key] = untagged(value, f"{folder}: {full[:64]}", listed)
    if source.optimizer is not None:
        source.optimizer.state.clear()
        source.optimizer.state.update(fresh)


def _load_scheduler(scheduler: Any, recorded: Component, folder: Path) -> None:
    wanted = recorded.get("last_epoch") if isinstance(recorded, dict) else None
    own = scheduler.state_dict().get("last_epoch")
    if not isinstance(wanted, int) or not isinstance(own, int):
        raise Refused(f"{folder}: a scheduler that does not count its steps cannot be resumed or replayed")
    if not 0 <= wanted - own <= _MAX_SCHEDULE_STEPS:
        raise Refused(f"{folder}: the scheduler stands at {own}, it cannot be stepped to {wanted}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "scheduler before optimizer": the optimizer's steps lie before the resume
        for _ in range(wanted - own):
            scheduler.step()
    _same(recorded, tagged(scheduler.state_dict(), "scheduler"), f"{folder}: scheduler")


def _load_scaler(scaler: Any, recorded: Component, folder: Path) -> None:
    own = scaler.state_dict()
    if not isinstance(recorded, dict) or recorded.keys() != own.keys():
        raise Refused(f"{folder}: the gradient scaler is not the program's")
    for key in ("scale", "_growth_tracker"):  # the only parts that training changes
        if key in own:
            own[key] = untagged(recorded[key], f"{folder}: scaler {key}")
    if own:
        scaler.load_state_dict(own)
    _same(recorded, tagged(scaler.state_dict(), "scaler"), f"{folder}: scaler")


def _known(parameters: Mapping[str, Any], name: str, folder: Path) -> Any:
    if name not in parameters:
        raise Refused(f"{folder}: the optimizer's state names {name[:64]!r}, which the program's does not hold")
    return parameters[name]


def _same(recorded: Any, own: Any, what: str, rule: str = "") -> None:
    difference = first_difference(recorded, own)
    if difference is not None:
        raise Refused(f"{what} are not the program's own: {difference}{'; ' * bool(rule)}{rule}")


def _entries(component: Component, folder: Path) -> list[TensorEntry]:
    if not isinstance(component, list):
        raise Malformed(f"{folder}: tensors expected, a JSON object found")
    return [item for item in component if isinstance(item, TensorEntry)]
