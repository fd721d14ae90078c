"""Driving a script from outside: its loader gives the committed batches, its optimizer's steps are the run's steps.

Each pass of the script over its loader takes the next batches of the committed order. A step is whole at the next batch
(after the last one: when the loop is left), because schedulers step after the optimizer. What does not fit is refused
at once.

Spec: `specs/transcript.md`, `launcher`. Shows: nothing by itself. Does not show: see `pot.recording.scripts.attach`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from pot.errors import PotError, Refused, UsageError
from pot.recording.batches.loading import is_stream
from pot.recording.begin import talk
from pot.recording.recorder import Run, record
from pot.recording.scripts.launched import Launched
from pot.recording.scripts.passing import PassingOver
from pot.recording.scripts.seen import Seen, others, see
from pot.recording.scripts.supply import PASS_ENDS, Supply, size
from pot.recording.state import digests
from pot.recording.writing.writer import OnError

__all__ = ["Driver"]

_TALK_SECONDS: Final = 5.0


class Driver:
    """One script being recorded or replayed. Its methods are called by what `attach` has put in place."""

    def __init__(self, launched: Launched, on_error: OnError = "stop") -> None:
        self.launched = launched
        self.failure: BaseException | None = None
        """What ended the recording; the script may have swallowed it."""
        self.done = 0
        """Steps recorded so far."""
        self.phase: Literal["before", "passing", "recording", "over"] = "before"
        self._on_error = on_error
        self._seen: Seen | None = None
        self._supply: Supply | None = None
        self._passing: PassingOver | None = None
        self._run: Run | None = None
        self._held: Any = None  # the latest batch
        self._taken, self._stepped = 0, False  # batches since the last whole step; whether the optimizer stepped
        self._losses: list[Any] = []
        self._talked = time.monotonic()

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Our own code; what it raises ends the recording, whatever the script makes of the exception."""
        if self.failure is not None:
            raise self.failure
        with self.launched.ours():
            try:
                yield
            except BaseException as error:
                self.failure = error
                self.stop(error)
                raise

    def stop(self, error: BaseException) -> None:
        """End the recording; what was recorded stays, and can be gone on with."""
        self.phase = "over"
        run, self._run = self._run, None
        self._end_passing()
        if run is not None:
            run.__exit__(type(error), error, error.__traceback__)
        else:
            self.launched.close()

    def begin(self) -> None:
        """The script makes a module."""
        with self._ours():
            self.launched.begin()

    def drives(self, loader: Any) -> Iterator[Any] | None:
        """The batches of one pass if this is the loader to drive; None: the script's own business."""
        if self.phase == "over" and self.failure is None:
            return None
        with self._ours():
            left = self._left_alone(loader)
            if left is not None:
                self.launched.notes.add(left)
                return None
            if self._supply is not None:
                self._supply.check_same(loader)
            else:
                self._supply = Supply(loader, self.launched)
                self.launched.check_reads()
                self._pass_over(self._supply)
            self._supply.begin_pass()
            return self._one_pass(self._supply)

    def length(self, loader: Any) -> int | None:
        """How many batches a pass over the driven loader has; None for another loader."""
        supply = self._supply
        return supply.pass_length if supply is not None and loader is supply.loader else None

    def _left_alone(self, loader: Any) -> str | None:
        """Why a loader is left to itself; None for the one to drive."""
        import torch

        name = type(loader.dataset).__name__
        stream = self.launched.begin().precommit.order.method == "stream/1"
        if is_stream(loader) != stream:
            kind = "has records by number" if stream else "is a stream; --stream would record it"
            return f"a loader over a {name} was left to itself: it {kind}"
        if not stream and size(loader) != self.launched.records():
            return f"a loader over {size(loader)} records ({name}) was left to itself: not as many are committed"
        if self._seen is None:
            self._seen = see()
        if self._seen is None or not torch.is_grad_enabled() or not self._seen.model.training:
            return f"a loader that could be the committed one ({name}) was left to itself where nothing is trained"
        return None

    def _pass_over(self, supply: Supply) -> None:
        if supply.passing and self._seen is not None:
            self.phase, self._passing = "passing", PassingOver(self._seen.model)
            talk(
                f"passing over {self.launched.start()} steps that are done; what the script says of them means nothing"
            )

    def _end_passing(self) -> None:
        if self._passing is not None:
            self._passing.end()
            self._passing = None

    def _one_pass(self, supply: Supply) -> Iterator[Any]:
        over = False
        try:
            for number in range(supply.pass_length or sys.maxsize):
                batch = self._next(supply, first=number == 0)
                if batch is PASS_ENDS:
                    supply.longest = number
                    return
                if supply.stream and self.phase == "over" and number >= supply.longest:
                    return  # so long a stream was before: it has no more to give now
                yield batch
                if over:  # it was given to see whether the script trains on, which it did not
                    return
                over = self.phase == "over"
        finally:
            # a loop that is left after the last step may be followed by anything: the state is taken here
            if self._run is not None and self._stepped and self._run.done + 1 == self._run.steps:
                with self._ours():
                    self._complete()

    def _next(self, supply: Supply, *, first: bool) -> Any:
        with self._ours():
            if self._stepped:
                self._complete()
            elif self._taken:
                if first and self._taken == 1 and not self._losses:
                    supply.give_again()  # it was looked at, not trained on
                    return self._held
                if first or self._taken == supply.accumulate:
                    raise Refused(
                        f"pot run: the optimizer did not step on the {self._batches(self._taken)} of step"
                        f" {self._number(supply)}, and the script takes the next; --accumulate says {supply.accumulate}"
                    )
                self._record()
            if self.phase != "over":
                if not supply.passing and self._run is None:
                    self._enter(supply)
                batch = supply.take(first=first)
                if batch is PASS_ENDS:
                    return batch
                self._held, self._taken, self._losses = batch, self._taken + 1, []
            return self._held

    def _enter(self, supply: Supply) -> None:
        """Take the initial state, or load the one that is gone on from."""
        seen = self._seen
        if seen is None:
            raise UsageError("pot run: no optimizer was found")
        self._end_passing()
        self.launched.check_settings()
        run = record(
            self.launched.begin(), model=seen.model, optimizer=seen.optimizer, scheduler=seen.scheduler,
            scaler=seen.scaler, on_error=self._on_error,
        )  # fmt: skip
        self.phase = "recording"
        self._run = run.__enter__()
        self.done = run.done
        supply.attach(run)
        self._note_others()

    def _note_others(self) -> None:
        for sentence in others(self._seen) if self._seen is not None else ():
            self.launched.notes.add(sentence)

    def before_step(self, optimizer: Any) -> None:
        """An optimizer is about to step."""
        if self.launched.busy:
            return
        with self._ours():
            supply = self._supply
            if supply is None:
                raise Refused(
                    f"pot run: the optimizer steps, but no DataLoader over the {self.launched.records()} committed"
                    " records gave a batch; a loop that makes its own batches needs the recorder's three lines"
                )
            if self._seen is not None and optimizer is not self._seen.optimizer:
                raise Refused(
                    f"pot run: a second optimizer ({type(optimizer).__name__}) steps; one can be recorded from outside"
                )
            if self.phase == "over":
                raise Refused(
                    f"pot run: the script trains on after step {self.done}, the last one promised; the run is complete"
                    " up to there, and what the script makes from here on is not the run's: promise more by --steps"
                )
            if self._stepped or self._taken != supply.accumulate:
                again = "a second time on" if self._stepped else "on"
                raise Refused(
                    f"pot run: the optimizer steps {again} the {self._batches(self._taken)} of step"
                    f" {self._number(supply)}; --accumulate says {supply.accumulate}"
                )

    def after_step(self) -> None:
        """The optimizer has stepped, or the scaler has left a step out."""
        if not self.launched.busy and self.phase != "over":
            self._stepped = True

    def backward(self, loss: Any) -> None:
        """Gradients flow back from `loss`, which is recorded as the step's where it is one number."""
        self._losses.append(loss.detach() if hasattr(loss, "detach") else None)

    def _loss(self) -> float | None:
        scaled = self._seen is not None and self._seen.scaler is not None
        if len(self._losses) != 1 or scaled or self._losses[0] is None or self._losses[0].numel() != 1:
            return None
        value = float(self._losses[0])
        if not math.isfinite(value):
            self.launched.notes.add("a loss was not a finite number, and was left out of the transcript")
            return None
        return value

    def _record(self) -> None:
        if self._run is not None:
            self._run.step(loss=self._loss())

    def _complete(self) -> None:
        """The step is whole."""
        self._record()
        self._taken, self._stepped, self._losses = 0, False, []
        run = self._run
        if run is None:
            return
        self.done = run.done
        if time.monotonic() - self._talked > _TALK_SECONDS and sys.stderr.isatty():
            talk(f"step {run.done} of {run.steps}")
            self._talked = time.monotonic()
        if run.done == run.steps:
            self.phase, self._run = "over", None
            self._note_others()
            run.__exit__(None, None, None)

    def _number(self, supply: Supply) -> int:
        """The current step."""
        return self.done + 1 if self._run is not None else self.launched.start() - supply.left // supply.accumulate

    @staticmethod
    def _batches(number: int) -> str:
        return "batch" if number == 1 else f"{number} batches"

    def finish(self) -> None:
        """The script has ended well. Raises what ended the recording before, `Refused` where nothing was recorded."""
        with self._ours():
            if self._stepped:
                self._complete()
            if self._supply is None:
                raise Refused(
                    "pot run: the script ended, and no DataLoader over the committed records gave a batch to train on"
                )
            ended = self.launched.end_model()
            if ended is not None and self._seen is not None and ended != _digest(self._seen.model):
                self.launched.notes.add(
                    f"the script changed the model after its last step: the run's weights are those of step {self.done}"
                )


def _digest(model: Any) -> str | None:
    """The digest of a model's state now; None for one that was taken apart."""
    from pot.recording.pytorch.state import TorchState

    try:
        return digests({"model": TorchState(model, None).capture()["model"]})["model"]
    except (PotError, RuntimeError):
        return None
