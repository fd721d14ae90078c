"""A PyTorch module and its optimizer as a recorder's state source whose states and batches get points.

Spec: `specs/step-proof.md`, "Float training" and "Family auto". What the two have in common: after every step the
trained tensors are put on the step's grid and written back, so that the next step starts from what was committed to,
and the integers are kept until challenged steps are proven. `pot.zk.float_training` and `pot.zk.auto_training` say what
the next state is.

Shows: nothing by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pot.errors import UsageError
from pot.recording.state import Component
from pot.recording.transcript import Points
from pot.zk.family import Step
from pot.zk.frozen import FrozenModule
from pot.zk.runs.grid import Grid
from pot.zk.runs.kept import keep
from pot.zk.runs.segment import MakePoints, OpenSegment, StepInputs

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["GridTrainer"]


class GridTrainer(ABC):
    """PyTorch's own state is what is recorded; its grid points are what is committed to."""

    def __init__(
        self,
        step: Step,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        secret: bytes,
        make_points: MakePoints | None,
        keep_in: Path | str | None,
        others: Mapping[str, Ints] | None,
    ) -> None:
        """`keep_in`: folder for the state after each step. `others`: start values of what neither of both has.

        Raises `UsageError`, `Malformed`, `Refused`.
        """
        from pot.recording.pytorch.state import TorchState

        self._torch = TorchState(module, optimizer)
        self._grid = Grid(step, module, optimizer)
        self._frozen = FrozenModule(module, self._grid.parameters)
        self._max_steps = step.max_steps
        self._start = dict(others or {})
        if sorted(self._start) != self._grid.others:
            raise UsageError(f"others: start values are needed of {', '.join(self._grid.others) or 'no tensor'}")
        if self._start and "betas" not in optimizer.defaults:  # only such optimizers say how many steps they have taken
            raise UsageError(f"{self._grid.others[0]}: belongs to an optimizer such as Adam, which this one is not")
        self._keep = None if keep_in is None else Path(keep_in)
        self._open = OpenSegment(secret, make_points)
        self.state: Mapping[str, Ints] = self._grid.read() | self._start
        self._check(self.state, start=True)
        self._write(0)

    @abstractmethod
    def _next(self, batch: Mapping[str, Ints]) -> Mapping[str, Ints]:
        """The state after the step that the optimizer has just taken on this batch. Raises `Refused`, `Malformed`."""

    @abstractmethod
    def _check(self, state: Mapping[str, Ints], *, start: bool = False) -> None:
        """Refuse a state that the step does not take. Raises `Refused`, `Malformed`."""

    @abstractmethod
    def _others_after(self, steps: int) -> Mapping[str, Ints]:
        """What neither module nor optimizer have, after so many steps; called where there is such a tensor."""

    @property
    def open_steps(self) -> list[StepInputs]:
        """The steps since the last points were made."""
        return list(self._open.steps)

    def step(self, number: int, batch: Mapping[str, Ints]) -> None:
        """Take the optimizer's step, just made on this batch, as step `number` of the run (from 1).

        Raises `Refused` where it lies too far from the step that would be proven, `Malformed`.
        """
        if number > self._max_steps:
            raise UsageError(f"step {number}: the program's steps can be proven up to number {self._max_steps}")
        after = self._next(batch)
        self._open.steps.append(StepInputs(number, self.state, batch, after))
        self._grid.write(after)
        self.state = after
        self._write(number)

    def points_for_segment(self, steps: list[int]) -> list[Points] | None:
        """See `PointSource` and `OpenSegment.points`. Raises `Refused` where a tensor moved that no step trains."""
        self._frozen.check()
        return self._open.points(steps, self.state)

    def capture(self) -> Mapping[str, Component]:
        """What `TorchState` captures: float tensors, all of them on the grid where they are trained."""
        return self._torch.capture()

    def load(self, folder: Path) -> None:
        """Put PyTorch's state back, and read the grid points of it again."""
        self._torch.load(folder)
        self._frozen.check()
        self._open.steps = []
        others = self._others_after(self._grid.steps()) if self._start else {}
        self.state = {**self._grid.read(), **others}
        self._check(self.state)

    def _write(self, number: int) -> None:
        if self._keep is not None:
            keep(self._keep, number, self.state)

    def __getattr__(self, name: str) -> Any:
        """What else the recorder asks a source for: snapshots, the optimizer's count of steps."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._torch, name)
