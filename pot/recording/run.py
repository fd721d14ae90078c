"""A run being recorded, resumed or replayed: what stands behind the three lines of `pot.recording.recorder`.

After a crash the same command goes on from the latest checkpoint with files; with POT_REPLAY set it repeats a segment
instead (`pot.recording.replaying`).

Spec: `specs/transcript.md`. Shows: nothing by itself. Does not show: what happened outside the loop's recorded state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from pot.canonical import MAX_DOCUMENT_BYTES, parse_canonical, read_file
from pot.errors import Malformed, Refused, UsageError
from pot.recording import replaying
from pot.recording.begin import Begun, talk
from pot.recording.chain import cursor_value
from pot.recording.environment import capture, differences
from pot.recording.feeding import CommittedFeed, Fed, StreamFeed, feed_of
from pot.recording.journal import Journal
from pot.recording.precommit import files_due
from pot.recording.program import late_modules
from pot.recording.state import (
    STATE_FILE,
    StateSource,
    capture_rng,
    check_files,
    checkpoint_name,
    digests,
    read_state_document,
    restore_rng,
)
from pot.recording.transcript import CheckpointEvent, Points, ResumeEvent, StartEvent, StepEvent, loss_text
from pot.recording.writer import OnError, Writer

__all__ = ["Run"]

_STREAM_KEY = "stream"  # of the generators' component


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
        self.feed = feed_of(begun.precommit, begun.seed, swap=begun.replay.swap if begun.replay is not None else None)
        self._on_error: OnError = on_error
        self._every = int(begun.precommit.checkpoint_every)
        self._writer: Writer | None = None
        self._journal: Journal | None = None
        self._frozen: dict[str, str] = {}
        self._rng: JsonValue = None
        self._fed: Fed | None = None
        self._driven = False  # batches come through `sampler`, not through `batches`
        self._losses: list[Any] = []
        self._held: list[StepEvent] = []  # steps of the open segment, while their points are not known
        self._replayed: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            self._frozen = self._frozen_digest()
            if self.begun.replay is not None:
                self._enter_replay(self.begun.replay)
            else:
                self._enter_run()
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

    def batches(self, loader: Any) -> Iterator[Any]:
        """Yield the remaining batches in the committed order, from where the run stands to its last planned step.

        `loader`: a DataLoader (its dataset, `collate_fn`, `num_workers`, `pin_memory` are used, its order is not), or a
        map-style dataset, whose records come as lists; with `stream=True` any iterable of batches. With `accumulate`,
        the micro-batches. Raises `UsageError` if `step` was not called for a batch.
        """
        self.take_generators()
        last = self.steps if self.begun.replay is None else self.begun.replay.last
        for fed in self.feed.iterate(loader, self.done, last):
            self._fed = fed
            yield fed.batch
            if self._fed is not None:
                raise UsageError(
                    f"step {fed.step}: run.step() was not called after this batch; call it last in the loop's body"
                )

    def sampler(self) -> Iterator[int]:
        """The remaining record numbers, micro-batch by micro-batch: for a trainer that makes its own batches.

        The trainer must take them in this order, `micro` at a time, and call `step` after each optimizer step.
        """
        if not isinstance(self.feed, CommittedFeed):
            raise UsageError("run.sampler(): a stream has no record numbers")
        self._driven = True
        self.take_generators()
        last = self.steps if self.begun.replay is None else self.begun.replay.last
        for step in range(self.done + 1, last + 1):
            for numbers in self.feed.records(step):
                yield from numbers

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
        event = self._completed(loss)
        if event is None:
            return
        text = loss_text(_mean(self._losses), self.done + 1)
        self._losses = []
        if self.done == 0 and _optimizer_idle(self.source):
            raise UsageError(
                "run.step(): the optimizer did not step on this batch, so there is no step to record; to accumulate"
                " gradients, give accumulate= and let the optimizer step where run.completes is true"
            )
        event = event.model_copy(update={"loss": text, "points": points})
        self.done += 1
        if points is None and hasattr(self.source, "points_for_segment"):
            self._held.append(event)
        else:
            self._write_step(event)
        if self.done % self._every == 0 or self.done == self.steps:
            self._flush()
            if self.begun.replay is None:
                self._checkpoint()
        if self.begun.replay is not None:
            self._replay_step(self.begun.replay)

    def _completed(self, loss: Any) -> StepEvent | None:
        """The event of the step that is complete now; None within a step."""
        if self._driven and isinstance(self.feed, CommittedFeed):
            self._losses = [loss]
            return self.feed.event(self.done + 1)
        if self._fed is None:
            raise UsageError("run.step() without a batch: call it once for each batch of run.batches(loader)")
        event, self._fed = self._fed.event, None
        self._losses.append(loss)
        return event

    def _write_step(self, event: StepEvent) -> None:
        fields = event.model_dump(exclude={"index", "previous", "points"}, exclude_none=True)
        if event.points is not None:
            fields["points"] = event.points
        if self._writer is not None:
            self._writer.append(StepEvent, fields)
        else:
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

    def _extra(self) -> dict[str, JsonValue]:
        """The components that the recorder adds: generators and cursor."""
        rng, kept = dict(capture_rng()), self.feed.remembered()
        if kept is not None:
            rng[_STREAM_KEY] = kept
        return {"rng": rng, "cursor": dict(cursor_value(self.done, *self.feed.place(self.done)))}

    def _digests(self) -> dict[str, str]:
        """The digest of each component now, hashed in place by every core: training stands still meanwhile."""
        return {**digests({**self.source.capture(), **self._extra()}, threads=0), **self._frozen}

    def _frozen_digest(self) -> dict[str, str]:
        frozen = self.source.frozen() if getattr(self.source, "frozen_names", None) else None  # type: ignore[attr-defined]
        return {} if frozen is None else digests({"frozen": frozen}, threads=0)

    def _checkpoint(self) -> None:
        """Hand a checkpoint to the writer: hashed here where that is all there is to do, else from a snapshot."""
        if self._writer is None:
            return
        last = self.done == self.steps
        if last and self._frozen_digest() != self._frozen:
            raise UsageError(
                "record: parameters that no optimizer holds changed during training; record them with the others, by"
                " frozen_apart=False"
            )
        files = files_due(self.precommit, self.done)
        if not files and getattr(self.source, "in_place", True):
            self._writer.root(self.done, self._digests())
            return
        self._writer.wait_for_snapshot()
        beside = hasattr(self.source, "snapshot")
        parts = self.source.snapshot() if beside else self.source.capture()  # type: ignore[attr-defined]
        components = {**parts, **self._extra()}
        self._writer.save(self.done, components, self._frozen, files=files, last=last or self.done == 0)
        if not beside:
            self._writer.wait_for_snapshot()

    def _enter_run(self) -> None:
        changed = [
            text for text in differences(self.precommit.environment, capture()) if not text.startswith("variables.")
        ]
        if changed:
            raise Refused(f"record: the environment has changed since begin(): {changed[0]}; set it before begin()")
        self._journal = Journal(self.begun.run_dir)
        events = self._journal.transcript.events
        saved = [event for event in events if isinstance(event, CheckpointEvent) and event.files]
        if saved:
            self._resume(self._journal, saved[-1])
        self._writer = Writer(
            self.begun.run_dir, self._journal, self.precommit.config_blake3, saved[-1] if saved else None,
            self._on_error, talk,
        )  # fmt: skip
        if not events:
            start = {
                "type": "start",
                "precommit_sha256": self.precommit.sha256(),
                "nonce": self.begun.nonce.hex(),
                "nonce_source": self.precommit.seed_source,
            }
            self._writer.append(StartEvent, start)
        if not saved:
            self._checkpoint()
            self._rng = dict(capture_rng())

    def _resume(self, journal: Journal, event: CheckpointEvent) -> None:
        transcript = journal.transcript
        _check_trusted_start(self.begun, transcript.events[0])
        check_files(self.begun.run_dir, event.files)
        self._load(self.begun.run_dir / checkpoint_name(int(event.step)), event)
        steps = [later for later in transcript.events if isinstance(later, StepEvent)]
        if isinstance(self.feed, StreamFeed):
            self.feed.passed = {int(step.step): step.batch_blake3 for step in steps}
        after = sum(int(step.index) > int(event.index) for step in steps)
        torn = transcript.torn_bytes
        journal.append(
            ResumeEvent, type="resume", step=event.step, checkpoint_index=event.index, dropped_bytes=str(torn)
        )
        lost = f"; a torn last line of {torn} bytes was dropped" if torn else ""
        talk(f"resuming {self.begun.run_dir} after step {event.step} of {self.steps}, {after} steps are repeated{lost}")

    def _enter_replay(self, replay: replaying.ReplayRange) -> None:
        if replay.first > 0:
            start = replay.run_dir / replaying.START_FOLDER
            what = replay.run_dir / "start.json"
            event = CheckpointEvent.from_value(
                parse_canonical(read_file(what, limit=MAX_DOCUMENT_BYTES), what=str(what)), what=str(what)
            )
            try:
                self._load(start, event)
            except (Refused, Malformed) as error:  # the files are the committed ones: the program cannot have this
                replaying.disagree(replay, str(error))
        elif not self.begun.seeded:
            replaying.take_generators(replay.run_dir / replaying.START_FOLDER / STATE_FILE)
        replaying.write_initial(replay, self._digests())
        self._rng = dict(capture_rng())
        if replay.last == replay.first:
            replaying.finish(replay, [], self._digests(), self.source)

    def _replay_step(self, replay: replaying.ReplayRange) -> None:
        if self.done in replay.roots:
            replaying.root(replay, self.done, self._digests())
        if self.done == replay.last:
            self._frozen = self._frozen_digest()
            replaying.finish(replay, self._replayed, self._digests(), self.source)

    def _load(self, folder: Any, event: CheckpointEvent) -> None:
        """Put a checkpoint's state back and check that it is the committed one. Raises `Refused`, `Malformed`."""
        path = folder / STATE_FILE
        document = read_state_document(path)
        generators, cursor = document["rng"], document["cursor"]
        if not isinstance(generators, dict) or not isinstance(cursor, dict):
            raise Malformed(f"{path}: must hold the generators and the cursor")
        self.done = int(event.step)
        try:
            place = int(str(cursor.get("epoch"))), int(str(cursor.get("position")))
        except ValueError:
            raise Malformed(f"{path}: the cursor's epoch and position are not numbers") from None
        self.feed.recall(generators.get(_STREAM_KEY), self.done, place)
        self.source.load(folder)
        restore_rng(generators, what=str(path))
        self._rng = {name: value for name, value in generators.items() if name != _STREAM_KEY}
        found = self._digests()
        for name in sorted(event.components.keys() | found.keys()):
            if event.components.get(name) != found.get(name):
                raise Refused(
                    f"{folder}: component {name} has the digest {found.get(name, 'none')} after loading, committed is"
                    f" {event.components.get(name, 'none')}"
                )

    def _leave(self) -> None:
        if self._writer is None:
            return
        if self.done < self.steps:
            why = "" if self.done else " (no batch was taken: loop over run.batches(loader), not over the loader)"
            talk(f"stopped after step {self.done} of {self.steps}{why}; start the same command again to go on")
            return
        self._writer.end(self.done)
        self._writer.close()
        late = late_modules(self.precommit.program)
        if late:
            talk(f"{late[0]} was loaded after the pre-commitment, so a replay lacks it; name it in code=")

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


def _check_trusted_start(begun: Begun, event: object) -> None:
    """A transcript of another pre-commitment or nonce must not be continued under this one."""
    if (
        not isinstance(event, StartEvent)
        or event.precommit_sha256 != begun.precommit.sha256()
        or event.nonce != begun.nonce.hex()
    ):
        raise Refused(f"{begun.run_dir}: the transcript is not of this pre-commitment and nonce; use a new run folder")
