"""Training in family auto: PyTorch takes a step, ezkl computes it again, and what ezkl computed is what goes on.

    trainer = AutoTrainer(kit, module, optimizer, engine=engine, secret=secret, keep_in="states")
    with record(begun, state=trainer, data=dataset) as run:
        for records in run.batches(dataset):
            loss = train_step(records)                       # zero_grad, backward, optimizer.step()
            trainer.step(run.done + 1, batch_arrays(records))
            run.step(loss=loss)

Spec: `specs/step-proof.md`, "Family auto". A proof is about a recorded next state that ezkl's own arithmetic gives, bit
by bit, and PyTorch's lies some units of the grid away. So module and optimizer are given ezkl's state after every step:
the next one starts from what was committed to. The start is left as it is: its point is that of its nearest grid
points.

Shows: each recorded step lies within `within` units of PyTorch's step from the same state (checked at once).
Does not show: that nobody steered a rescale; the states kept here are honest ones, a proof allows others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pot.errors import Refused, UsageError
from pot.zk.auto_program import AutoProgram
from pot.zk.auto_steps import next_state
from pot.zk.kit import commit_points
from pot.zk.runs.grid_trainer import GridTrainer
from pot.zk.runs.kept import read_kept

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pot.zk.engine import Engine
    from pot.zk.kit import ProvingKit

    Ints = NDArray[np.int64]

__all__ = ["WITHIN", "AutoTrainer"]

WITHIN: Final = 64
"""Units of the grid: honest steps of small networks lie within 3, a step with another loss or rate far beyond."""
FLOAT_BITS: Final = 24  # of a float32's significand: a larger integer may be none


class AutoTrainer(GridTrainer):
    """The state source of a run in family auto: module and optimizer, moved by what ezkl computes of each step."""

    def __init__(
        self,
        kit: ProvingKit,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        engine: Engine,
        secret: bytes,
        keep_in: Path | str,
        others: Mapping[str, Ints] | None = None,
        within: int = WITHIN,
    ) -> None:
        """`keep_in`: folder for the state after each step. `secret`: 32 random bytes of this run alone.

        `others`: start values of state tensors that neither module nor optimizer have. `within`: how many units ezkl's
        step may lie away from PyTorch's. Raises `UsageError`, `Malformed`.
        """
        program = kit.verifying.step
        if not isinstance(program, AutoProgram):
            raise UsageError(f"{program.label}: is of family exact; pot.zk.float_training trains floats for it")
        self.program = program
        self._kit, self._engine, self._folder, self._within = kit, engine, Path(keep_in), within
        self.distance = 0
        """The largest distance of a step so far from PyTorch's, in units of the grid."""
        super().__init__(
            program, module, optimizer, secret=secret, keep_in=keep_in,
            make_points=lambda secret, states, batches: commit_points(kit.verifying, secret, states, batches, engine),
            others=others,
        )  # fmt: skip

    def _next(self, batch: Mapping[str, Ints]) -> Mapping[str, Ints]:
        after = next_state(self._kit, self.state, batch, self._engine)
        for name, floats in self._grid.read().items():
            far = int(abs(after[name] - floats).max())
            if far > self._within:
                raise Refused(
                    f"{name}: ezkl's step lies {far} units of the grid away from PyTorch's, {self._within} are allowed;"
                    " trace the step with this loss and optimizer, give it a larger scale, or allow more with within="
                )
            if int(abs(after[name]).max()) >= 1 << FLOAT_BITS:
                raise Refused(f"{name}: a value beyond {FLOAT_BITS} bits is no float32; give the step a smaller scale")
            self.distance = max(self.distance, far)
        return after

    def _check(self, state: Mapping[str, Ints], *, start: bool = False) -> None:
        self.program.state_integers(state, start=start)

    def _others_after(self, steps: int) -> Mapping[str, Ints]:
        kept = read_kept(self._folder, steps)
        return {name: kept[name] for name in self._start}
