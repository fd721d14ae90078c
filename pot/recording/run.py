"""A run being recorded, resumed or replayed: what stands behind the three lines of `pot.recording.recorder`.

After a crash the same command goes on from the latest checkpoint with files; with POT_REPLAY set it repeats a segment
instead (`pot.recording.going_on`). In a distributed run every process does the same, and the first writes.

Spec: `specs/transcript.md`. Shows: nothing by itself. Does not show: what happened outside the loop's recorded state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from pot.errors import EnvironmentFailure, Refused, UsageError
from pot.recording import replaying
from pot.recording.batches.feeding import Fed, feed_of
from pot.recording.begin import Begun, talk
from pot.recording.generators import capture_rng, restore_rng
from pot.recording.going_on import enter, enter_replay
from pot.recording.precommit import files_due
from pot.recording.program import late_modules
from pot.recording.pytorch.moved import RULE
from pot.recording.state import StateSource
from pot.recording.transcript import Points, StepEvent, loss_text
from pot.recording.writing.checkpointing import StateTaker
from pot.recording.writing.journal import Journal
from pot.recording.writing.writer import OnError, Writer

__all__ = ["Run"]


class Run:
    """A run being recorded, resumed or replayed; made by `record`."""

    def __init__(self, begun: Begun, source: StateSource, on_error: OnError = "stop") -> None:
        self.begun = begun
        self.source = source
        self.precommit = begun.precommit
        self.steps = int(begun.precommit.steps)
        """Planned steps."""
        self.done = 0
        """Steps done so far."""
        swap = begun.replay.swap if begun.replay is not None else None
        self.feed = feed_of(begun.precommit, begun.seed, begun.ranks.rank, swap)
        self._ranks = begun.ranks
        self._taker = StateTaker(begun, source, self.feed, on_error)
        self._on_error: OnError = on_error
        self._every = int(begun.precommit.checkpoint_every)
        self._writer: Writer | None = None
        self._journal: Journal | None = None
        self._rng: JsonValue = None
        self._fed: Fed | None = None
        self._ahead = False  # micro-batches are taken together, `step` is called once for all of them
        self._losses: list[Any] = []
        self._held: list[StepEvent] = []  # steps of the open segment, while their points are not known
        self._replayed: list[dict[str, Any]] = []
        self._groups: list[JsonValue] | None = None  # the optimizer's at the start, while nothing was said of them

    def __enter__(self) -> Self:
        try:
            self._enter()
        except BaseException:
            self._close(failed=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.begun.replay is None:
                self._leave()
        except BaseException:
            self._close(failed=True)
            raise
        self._close(failed=kind is not None)

    @property
    def completes(self) -> bool:
        """Whether the optimizer steps on the current micro-batch; always true unless gradients are accumulated."""
        return self._fed is None or self._fed.event is not None

    def batches(self, loader: Any, *, ahead: bool = False) -> Iterator[Any]:
        """Yield the remaining batches in the committed order, from where the run stands to its last planned step.

        `loader`: a DataLoader (its dataset, `collate_fn`, `num_workers`, `pin_memory` are used, its order is not), or a
        map-style dataset, whose records come as lists; with `stream=True` any iterable of batches. With `accumulate`,
        the micro-batches. Raises `UsageError` if `step` was not called for a batch.

        `ahead`: for a trainer with a loop of its own, which may take all micro-batches of a step before it trains on
        the first, and calls `step` once for each step of its optimizer.
        """
        self._ahead = ahead
        self.take_generators()
        last = self.steps if self.begun.replay is None else self.begun.replay.last
        for fed in self.feed.iterate(loader, self.done, last):
            self._fed = fed
            yield fed.batch
            if self._fed is not None and (fed.event is not None or not ahead):
                raise UsageError(
                    f"step {fed.step}: run.step() was not called after this batch; call it last in the loop's body"
                )

    def take_generators(self) -> None:
        """Give the random generators the state that they had at `record`, or in the checkpoint that is gone on from.

        What the program drew since then must not tell a resumed run from a whole one. Only the first call does this.
        """
        if self._rng is not None:
            restore_rng(self._rng, what="checkpoint")
            self._rng = None

    def step(self, loss: Any = None, points: Points | None = None) -> None:
        """Record that the optimizer has stepped on the batch that `batches` gave. `loss`: number or one-element tensor.

        With `accumulate` it is called after every micro-batch, the last of which completes the step; the mean of their
        losses is recorded. `points`: the step's KZG commitments, where the caller has them already. Raises `UsageError`
        for a loss that is not finite or a second call for one batch, `EnvironmentFailure` where the transcript or a
        checkpoint cannot be written.
        """
        event = self._completed()
        # no graph is held for the mean; what is recorded is the first process's
        own = (loss.detach() if hasattr(loss, "detach") else loss) if self._ranks.first else None
        losses = [*self._losses, own]
        if event is None:
            self._fed, self._losses = None, losses
            return
        text = loss_text(_mean(losses), self.done + 1)
        if self.done == 0 and _optimizer_idle(self.source):
            raise UsageError(
                "run.step(): the optimizer did not step on this batch, so there is no step to record; to accumulate"
                " gradients, give accumulate= and let the optimizer step where run.completes is true"
            )
        self._fed, self._losses = None, []
        event = event.model_copy(update={"loss": text, "points": points})
        self.done += 1
        if points is None and hasattr(self.source, "points_for_segment"):
            self._held.append(event)
        else:
            self._write_step(event)
        if self.done % self._every == 0 or self.done == self.steps:
            self._flush()
            if self.begun.replay is None:
                self._look_at_options()
                self._taker.checkpoint(self._writer, self.done)
        if self.begun.replay is not None:
            self._replay_step(self.begun.replay)

    def _look_at_options(self) -> None:
        """Say, or refuse if `strict`, that options have moved which no resumed run or replay can move.

        It is looked at where others would go on from; the script under `pot run` turns its own loop to the place.
        """
        if self.begun.launched or self.done == self.steps or not files_due(self.precommit, self.done):
            return
        found = getattr(self.source, "moved")(self._groups) if self._groups is not None else None  # noqa: B009
        sentence = f"step {self.done}: {found}: from here this run can be neither resumed nor replayed; {RULE}"
        self._ranks.agree(lambda: self._refuse(sentence) if found is not None and self.begun.strict else None)
        if found is not None:
            self._groups = None
            if self._ranks.first:
                talk(sentence)

    @staticmethod
    def _refuse(sentence: str) -> None:
        raise Refused(f"record(strict=True): {sentence}")

    def _completed(self) -> StepEvent | None:
        """The event of the step that is complete now; None within a step."""
        if self._fed is None:
            raise UsageError("run.step() without a batch: call it once for each batch of run.batches(loader)")
        if self._ahead and self._fed.event is None:
            raise UsageError("run.step() within a step: the trainer's optimizer stepped before the last micro-batch")
        return self._fed.event

    def _write_step(self, event: StepEvent) -> None:
        fields = event.model_dump(exclude={"index", "previous", "points"}, exclude_none=True)
        if event.points is not None:
            fields["points"] = event.points
        if self._writer is not None:
            try:
                self._writer.append(StepEvent, fields)
            except EnvironmentFailure as error:
                self._ranks.later(error)
        elif self.begun.replay is not None:
            self._replayed.append(event.model_dump(mode="json", exclude={"index", "previous"}, exclude_none=True))

    def _flush(self) -> None:
        """Write the steps that waited for their points."""
        if not self._held:
            return
        numbers = [int(event.step) for event in self._held]
        points: Sequence[Points] | None = getattr(self.source, "points_for_segment")(numbers)  # noqa: B009
        if points is None and self._writer is not None:
            raise UsageError("record: the state source gave no points; outside of a replay it must")
        if points is not None and len(points) != len(numbers):
            raise UsageError(f"record: the state source gave {len(points)} points for {len(numbers)} steps")
        for at, event in enumerate(self._held):
            self._write_step(event if points is None else event.model_copy(update={"points": points[at]}))
        self._held = []

    def _enter(self) -> None:
        replay = self.begun.replay
        self._taker.frozen = self._taker.take_frozen()
        if replay is None:
            at = enter(self.begun, self._taker, self.feed, self._on_error)
        else:
            at = enter_replay(self.begun, self._taker, self.feed, replay)
        self.done, self._journal, self._writer, self._rng = at.done, at.journal, at.writer, at.generators
        if replay is None and at.fresh:
            self._taker.checkpoint(self._writer, 0)
        if hasattr(self.source, "moved"):
            self._groups = self.source.groups()  # type: ignore[attr-defined]
        if self._rng is None:
            self._rng = dict(capture_rng(own_device=self._ranks.world > 1))
        if replay is not None and replay.last == replay.first:
            self._taker.finish(replay, [], self.done)

    def _replay_step(self, replay: replaying.ReplayRange) -> None:
        if self.done in replay.roots:
            replaying.root(replay, self.done, self._taker.digests(self.done))
        if self.done == replay.last:
            self._taker.frozen = self._taker.take_frozen()
            self._taker.finish(replay, self._replayed, self.done)

    def _leave(self) -> None:
        if self.done < self.steps:
            if self._writer is not None:
                why = "" if self.done else " (no batch was taken: loop over run.batches(loader), not over the loader)"
                talk(f"stopped after step {self.done} of {self.steps}{why}; start the same command again to go on")
            return
        self._ranks.agree(self._end)
        if self._writer is not None:
            late = late_modules(self.precommit.program)
            if late:
                talk(f"{late[0]} was loaded after the pre-commitment, so a replay lacks it; name it in code=")

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.end(self.done)
            self._writer.close()

    def _close(self, *, failed: bool) -> None:
        try:
            if self._writer is not None and failed:
                self._writer.abandon()
            elif self._writer is not None:
                self._writer.close()
        finally:
            self._writer = None
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            self.begun.close()


def _mean(losses: Sequence[Any]) -> Any:
    """The mean of the micro-batches' losses; of one, itself."""
    if len(losses) == 1:
        return losses[0]
    return None if any(loss is None for loss in losses) else sum(float(loss) for loss in losses) / len(losses)


def _optimizer_idle(source: StateSource) -> bool:
    """Whether the optimizer surely has not stepped; one with a gradient scaler may leave its first steps out."""
    return getattr(source, "optimizer_steps", None) == 0 and getattr(source, "scaler", None) is None
