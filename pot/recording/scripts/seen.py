"""What an unmodified script has made, as seen from outside: its model, optimizer, scheduler and scaler, and its files.

Covered: one optimizer over the parameters of one module, one scheduler, one enabled gradient scaler; files below the
program's folder that Python opens. Not covered: state in plain variables, and files that native code opens by itself or
that a loader's workers open; a replay rebuilds the one and lacks the other.

Shows: nothing by itself; what is found here is what `attach` records; the notes say what it leaves out.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pot.errors import Refused
from pot.recording.begin import talk

__all__ = ["Notes", "Reads", "Seen", "others", "see"]

_SHOWN: Final = 20
_MAX_READS: Final = 10_000  # names kept; a script that reads more has said enough
_CODE: Final = (".py", ".pyc", ".pyi", ".so", ".pyd")


class Notes:
    """What could not be seen, each sentence once, in the order in which it was found."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}
        self._said: set[str] = set()

    def add(self, sentence: str, *, loud: bool = False) -> None:
        """Keep a sentence for the end; `loud`: say it now too, while something can still be done about it."""
        if sentence not in self._sentences:
            self._sentences[sentence] = None
            if loud:
                self._said.add(sentence)
                talk(sentence)

    def all(self) -> list[str]:
        """The sentences."""
        return list(self._sentences)

    def said(self) -> list[str]:
        """Those that were said when they were found."""
        return [sentence for sentence in self._sentences if sentence in self._said]


@dataclass(frozen=True)
class Seen:
    """The objects whose state is recorded; PyTorch's, or None."""

    model: Any
    optimizer: Any
    scheduler: Any
    scaler: Any


def see() -> Seen | None:
    """What there is to record; None where the script has made no optimizer yet. Raises `Refused` for more than can be
    recorded from outside.

    Objects are looked for among all that are alive: a script passes them from hand to hand as it likes.
    """
    gc.collect()  # what a script has dropped may still lie in a cycle
    alive = _alive()
    optimizers = alive.optimizers
    if not optimizers:
        return None
    if len(optimizers) > 1:
        names = ", ".join(sorted(type(item).__name__ for item in optimizers))
        raise Refused(
            f"pot run: the script has {len(optimizers)} optimizers ({names}), and one is what can be recorded from"
            " outside; put the recorder's three lines into its loop, with a state= of your own"
        )
    (optimizer,) = optimizers
    return Seen(_model(optimizer, alive), optimizer, _scheduler(optimizer, alive), _scaler(alive))


def others(seen: Seen) -> list[str]:
    """Sentences about what is alive beside the recorded objects, and whose state nothing records."""
    alive = _alive()
    held = {id(parameter) for parameter in seen.model.parameters()}
    modules = alive.modules
    outside = [module for module in modules if any(id(parameter) not in held for parameter in module.parameters())]
    found = [
        f"a module {type(module).__name__} has parameters outside the recorded model; their values are in no checkpoint"
        for module in _outermost(outside)
        if not any(part is seen.model for part in module.modules())
    ]
    if _scheduler(seen.optimizer, alive) is not seen.scheduler:
        found.append("a learning rate scheduler was made or exchanged after the first batch; its state is not recorded")
    return sorted(set(found))


@dataclass(frozen=True)
class _Alive:
    optimizers: list[Any]
    modules: list[Any]
    schedulers: list[Any]
    scalers: list[Any]


def _alive() -> _Alive:
    import torch

    kinds = (torch.optim.Optimizer, torch.nn.Module, torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler)
    found = [item for item in gc.get_objects() if issubclass(type(item), kinds)]
    return _Alive(*([item for item in found if isinstance(item, kind)] for kind in kinds))


def _outermost(modules: Iterable[Any]) -> list[Any]:
    found = list(modules)
    inner = {id(part) for module in found for part in module.modules() if part is not module}
    return [module for module in found if id(module) not in inner]


def _model(optimizer: Any, alive: _Alive) -> Any:
    """The outermost module that owns all of the optimizer's parameters."""
    wanted = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    owners = [module for module in alive.modules if wanted <= {id(parameter) for parameter in module.parameters()}]
    if not owners:
        raise Refused(
            "pot run: no module owns all parameters of the optimizer, so there is no one model to record; put them into"
            " one torch.nn.Module"
        )
    outer = _outermost(owners)
    if len(outer) > 1:  # two wrappers around one model: what they have in common
        shared = set.intersection(*({id(part) for part in module.modules()} for module in outer))
        outer = _outermost(module for module in owners if id(module) in shared)
    if len(outer) != 1:
        names = ", ".join(sorted(type(module).__name__ for module in _outermost(owners)))
        raise Refused(f"pot run: several modules own the optimizer's parameters ({names}); which one is the model?")
    return outer[0]


def _scheduler(optimizer: Any, alive: _Alive) -> Any:
    found = [item for item in alive.schedulers if getattr(item, "optimizer", None) is optimizer]
    inner = {id(part) for item in found for part in getattr(item, "_schedulers", ())}
    found = [item for item in found if id(item) not in inner]
    if len(found) > 1:
        names = ", ".join(sorted(type(item).__name__ for item in found))
        raise Refused(
            f"pot run: {len(found)} schedulers change the learning rate of one optimizer ({names}); join them by"
            " torch.optim.lr_scheduler.ChainedScheduler"
        )
    return found[0] if found else None


def _scaler(alive: _Alive) -> Any:
    found = [item for item in alive.scalers if item.is_enabled()]
    if len(found) > 1:
        raise Refused("pot run: the script has more than one gradient scaler; one can be recorded")
    return found[0] if found else None


class Reads:
    """Files below the program's folder that were read but are not committed to; fed by `sys.addaudithook`."""

    def __init__(self, root: Path, committed: Iterable[str], run_dir: Path) -> None:
        """`committed`: paths of inputs and code below `root`, as the pre-commitment spells them."""
        self.active = True
        self._root = str(root)
        self._committed = set(committed)
        self._run_dir = os.path.abspath(run_dir)
        self._read: dict[str, None] = {}
        self._written: set[str] = set()
        self._process = os.getpid()

    def commit(self, places: Iterable[str]) -> None:
        """These are committed to after all."""
        self._committed.update(places)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook (PEP 578): it sees every `open` of this process, and must never fail."""
        if event != "open" or not self.active or os.getpid() != self._process:
            return
        path, mode, flags = arguments
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str) or len(self._read) >= _MAX_READS:
            return
        place = os.path.abspath(path)
        if not place.startswith(self._root + os.sep):
            return
        writes = any(letter in mode for letter in "wxa+") if isinstance(mode, str) else bool(flags & 3)
        if writes:
            self._written.add(place)
        elif place not in self._written and not place.startswith(self._run_dir + os.sep) and os.path.isfile(place):
            self._read[place] = None

    def uncommitted(self) -> list[str]:
        """Their paths below the program's folder, sorted."""
        found = []
        for place in self._read:
            name = os.path.relpath(place, self._root).replace(os.sep, "/")
            installed = place.startswith((sys.prefix + os.sep, sys.base_prefix + os.sep)) or "site-packages" in place
            if name not in self._committed and not name.endswith(_CODE) and not installed:
                found.append(name)
        return sorted(found)

    def sentences(self) -> list[str]:
        """One for each of the first files, and one for the rest."""
        names = self.uncommitted()
        told = [
            f"the script reads {name}, which is not committed, so a replay lacks it: name it with --input {name}"
            for name in names[:_SHOWN]
        ]
        return told + ([f"the script reads {len(names) - _SHOWN} more such files"] if len(names) > _SHOWN else [])
