"""Float training whose steps can be proven up to a distance: PyTorch steps, a program says how far off that may be.

    trainer = FloatTrainer(program, module, optimizer, secret=secret, make_points=make_points, keep_in="states")
    with record(begun, state=trainer, data=dataset) as run:
        for records in run.batches(dataset):
            loss = train_step(records)                       # zero_grad, backward, optimizer.step()
            trainer.step(run.done + 1, batch_arrays(program, records))
            run.step(loss=loss)

Spec: `specs/step-proof.md`, "Float training". After each step the trained tensors are put on the program's grid and
written back, so that the next step starts from what was committed to. Float32 holds every such grid point exactly. The
start is left as it is: its point is that of its nearest grid points.

Shows: each recorded step lies within the program's slack of the exact step from the same state (checked at once).
Does not show: which point within the slack the optimizer would have come to; slacks of many steps add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pot.errors import UsageError
from pot.recording.state import Component
from pot.recording.transcript import Points
from pot.zk.runs.grid import Grid
from pot.zk.runs.kept import keep
from pot.zk.runs.segment import MakePoints, OpenSegment, StepInputs
from pot.zk.semantics.exact import advance, check_state, run

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pot.zk.semantics.program import Program

    Ints = NDArray[np.int64]

__all__ = ["FloatTrainer"]


class FloatTrainer:
    """The state source of a float run with points: PyTorch's own state, and its grid points as what is committed to."""

    def __init__(
        self,
        program: Program,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        secret: bytes,
        make_points: MakePoints | None = None,
        keep_in: Path | str | None = None,
        others: Mapping[str, Ints] | None = None,
        check: bool = True,
    ) -> None:
        """`keep_in`: folder for the state after each step, without which a step cannot be proven later.

        `others`: start values of state tensors that neither module nor optimizer have. `check`: False only while the
        slack is measured (`pot.zk.runs.slack`).

        Raises `UsageError`, `Malformed`, `RangeLeft`.
        """
        from pot.recording.pytorch.state import TorchState

        self.program = program
        self._torch = TorchState(module, optimizer)
        self._grid = Grid(program, module, optimizer)
        self._start = dict(others or {})
        if sorted(self._start) != self._grid.others:
            raise UsageError(f"others: start values are needed of {', '.join(self._grid.others) or 'no tensor'}")
        if self._start and "betas" not in optimizer.defaults:  # only such optimizers say how many steps they have taken
            raise UsageError(f"{self._grid.others[0]}: belongs to an optimizer such as Adam, which this one is not")
        self._check = check
        self._keep = None if keep_in is None else Path(keep_in)
        self._open = OpenSegment(secret, make_points)
        self.state: Mapping[str, Ints] = self._grid.read() | self._start
        check_state(program, self.state, start=True)
        self._write(0)

    @property
    def open_steps(self) -> list[StepInputs]:
        """The steps since the last points were made."""
        return list(self._open.steps)

    def step(self, number: int, batch: Mapping[str, Ints]) -> None:
        """Take the optimizer's step, just made on this batch, as step `number` of the run (from 1).

        Raises `Refused` where it lies farther from the exact step than the program's slack, `RangeLeft`, `Malformed`.
        """
        if number > self.program.max_steps:
            raise UsageError(f"step {number}: the program's steps can be proven up to number {self.program.max_steps}")
        after = self._grid.read() | advance(self.program, {name: self.state[name] for name in self._grid.others})
        if self._check:
            run(self.program, self.state, batch, after=after)
        self._open.steps.append(StepInputs(number, self.state, batch, after))
        self._grid.write(after)
        self.state = after
        self._write(number)

    def points_for_segment(self, steps: list[int]) -> list[Points] | None:
        """See `PointSource` and `OpenSegment.points`."""
        return self._open.points(steps, self.state)

    def capture(self) -> Mapping[str, Component]:
        """What `TorchState` captures: float tensors, all of them on the grid where the program trains them."""
        return self._torch.capture()

    def load(self, folder: Path) -> None:
        """Put PyTorch's state back, and read the grid points of it again."""
        self._torch.load(folder)
        self._open.steps = []
        others = self._start
        for _ in range(self._grid.steps() if others else 0):
            others = advance(self.program, others)
        self.state = self._grid.read() | others
        check_state(self.program, self.state)

    def _write(self, number: int) -> None:
        if self._keep is not None:
            keep(self._keep, number, self.state)

    def __getattr__(self, name: str) -> Any:
        """What else the recorder asks a source for: snapshots, the optimizer's count of steps."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._torch, name)
