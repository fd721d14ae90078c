"""A run under a loop that is not ours: a trainer takes batches when it likes and says when its optimizer has stepped.

A step is recorded when the trainer asks for the next batch, or at the end of training: what its other callbacks did to
the state by then (an average of weights, say) is in it. The random generators are given back as they were when the
optimizer had stepped: an evaluation or a progress bar between two steps must not tell a resumed or replayed run, which
may leave it out, from a whole one.

Spec: `specs/recording.md`. Shows / does not show: see `pot.recording.run`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from pot.commitments.order import steps_per_epoch
from pot.errors import UsageError
from pot.recording.batches.loading import check_loader, check_size, check_stream
from pot.recording.begin import Begun
from pot.recording.precommit import total_records
from pot.recording.recorder import record
from pot.recording.run import Run

__all__ = ["DrivenRun", "HandedOut"]


class DrivenRun:
    """What a trainer's callback drives: `hand_out` before training, `start`, `loss` and `stepped` in it, `leave`."""

    def __init__(self, begun: Begun) -> None:
        order = begun.precommit.order
        self.begun = begun
        self.micro = int(order.micro or order.batch)
        self.accumulate = int(order.batch) // self.micro
        self.steps = int(begun.precommit.steps)
        self.stream = order.method == "stream/1"
        self.epoch_steps = (
            self.steps if self.stream else steps_per_epoch(total_records(begun.precommit), int(order.batch))
        )
        """Steps of an epoch; a stream, whose epochs show only when they end, counts as one."""
        self.run: Run | None = None
        self._handed: HandedOut | None = None
        self._losses: list[Any] = []
        self._waiting: tuple[Any, _Generators] | None = None  # a step that is to be recorded

    def hand_out(self, loader: Any) -> HandedOut:
        """What the trainer is given in place of its loader. Raises `UsageError` for one that cannot be recorded."""
        if self.stream:
            check_stream(loader)
        else:
            check_loader(loader, self.micro)
            check_size(loader, total_records(self.begun.precommit))
        self._handed = HandedOut(self, loader)
        return self._handed

    def handed_out(self, loader: Any) -> bool:
        """Whether this is what `hand_out` gave."""
        return self._handed is not None and loader is self._handed

    def start(self, **parts: Any) -> Run:
        """Record or resume, with the arguments of `record`: the trainer's model, optimizer and schedule exist now."""
        if self.run is not None:
            raise UsageError("record: this run was trained already; begin() another one for a second training")
        self.run = record(self.begun, **parts)
        return self.run.__enter__()

    def loss(self, loss: Any) -> None:
        """The loss of a micro-batch, as it went into the gradient; their sum is the step's."""
        self._losses.append(loss)

    def stepped(self) -> None:
        """The optimizer has stepped."""
        self.settle()  # two steps without a batch between them: `Run.step` says so
        self._waiting = (sum(self._losses) if self._losses else None, _Generators())
        self._losses = []

    def settle(self) -> None:
        """Record the step that waits for it."""
        if self._waiting is None or self.run is None:
            return
        (loss, generators), self._waiting = self._waiting, None
        generators.restore()
        self.run.step(loss)

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """The end of training: record what waits, unless it failed, and close the run."""
        if self.run is None:
            self.begun.close()
            return
        try:
            if kind is None:
                self.settle()
        except BaseException as failed:
            self.run.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self.run.__exit__(kind, error, trace)


class HandedOut:
    """A loader in the committed order, as long as an epoch; begun again it goes on where the run stands."""

    def __init__(self, driven: DrivenRun, loader: Any) -> None:
        self.dataset = getattr(loader, "dataset", loader)
        self.batch_size = driven.micro
        self._driven = driven
        self._loader = loader
        self._batches: Iterator[Any] | None = None

    def __len__(self) -> int:
        return self._driven.epoch_steps * self._driven.accumulate

    def __iter__(self) -> Iterator[Any]:
        """The micro-batches until the end of the epoch. Nothing happens before the first is asked for."""
        driven = self._driven
        driven.settle()
        if driven.run is None:
            raise UsageError(
                "record: the training data was read before training began; evaluate on a loader of its own"
            )
        if self._batches is None:
            self._batches = driven.run.batches(self._loader, ahead=True)
        left = driven.epoch_steps - driven.run.done % driven.epoch_steps
        for _ in range(left * driven.accumulate):
            driven.settle()
            for batch in self._batches:
                yield batch
                break
            else:
                return


class _Generators:
    """The global generators' states, not in the committed form, which costs a thousandth of a second."""

    def __init__(self) -> None:
        import numpy
        import torch

        self._python = random.getstate()
        self._numpy = numpy.random.get_state()
        self._torch = torch.get_rng_state()
        cuda: Any = torch.cuda
        self._cuda = cuda.get_rng_state_all() if cuda.is_available() and cuda.is_initialized() else []

    def restore(self) -> None:
        import numpy
        import torch

        random.setstate(self._python)
        numpy.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
