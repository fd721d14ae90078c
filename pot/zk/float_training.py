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
from typing import TYPE_CHECKING

from pot.zk.runs.grid_trainer import GridTrainer
from pot.zk.runs.segment import MakePoints
from pot.zk.semantics.exact import advance, check_state, run

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pot.zk.semantics.program import Program

    Ints = NDArray[np.int64]

__all__ = ["FloatTrainer"]


class FloatTrainer(GridTrainer):
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
        slack is measured (`pot.zk.runs.slack`); else a step farther from the exact one than the slack is refused.

        Raises `UsageError`, `Malformed`, `RangeLeft`.
        """
        self.program = program
        self._exact = check
        super().__init__(
            program, module, optimizer, secret=secret, make_points=make_points, keep_in=keep_in, others=others
        )

    def _next(self, batch: Mapping[str, Ints]) -> Mapping[str, Ints]:
        after = self._grid.read() | advance(self.program, {name: self.state[name] for name in self._grid.others})
        if self._exact:
            run(self.program, self.state, batch, after=after)
        return after

    def _check(self, state: Mapping[str, Ints], *, start: bool = False) -> None:
        check_state(self.program, state, start=start)

    def _others_after(self, steps: int) -> Mapping[str, Ints]:
        others: Mapping[str, Ints] = self._start
        for _ in range(steps):
            others = advance(self.program, others)
        return others
