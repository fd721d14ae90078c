"""A run being recorded, resumed or replayed: what stands behind the three lines of `pot.recording.recorder`.

After a crash the same command goes on from the latest checkpoint; with POT_REPLAY set it repeats a segment instead
(`pot.recording.replaying`).

Spec: `specs/transcript.md`. Shows: nothing by itself. Does not show: what happened outside the loop's recorded state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from pot.canonical import MAX_DOCUMENT_BYTES, parse_canonical, read_file
from pot.commitments.order import batch_records
from pot.commitments.state import FIRST_STATE, state_digest
from pot.errors import Malformed, Refused, UsageError
from pot.recording import replaying
from pot.recording.begin import Begun, talk
from pot.recording.chain import cursor_value
from pot.recording.environment import capture, differences
from pot.recording.journal import Journal
from pot.recording.loading import check_loader, check_size, fetch
from pot.recording.precommit import total_records
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
    write_checkpoint,
)
from pot.recording.transcript import (
    CheckpointEvent,
    EndEvent,
    Points,
    ResumeEvent,
    StartEvent,
    StepEvent,
    batch_digest,
    loss_text,
)

__all__ = ["Run"]


class Run:
    """A run being recorded, resumed or replayed; made by `record`."""

    def __init__(self, begun: Begun, source: StateSource) -> None:
        self.begun = begun
        self.source = source
        self.precommit = begun.precommit
        self.steps = int(begun.precommit.steps)
        """Planned steps."""
        self.done = 0
        """Steps done so far."""
        self._every = int(begun.precommit.checkpoint_every)
        self._size = total_records(begun.precommit)
        self._batch = int(begun.precommit.order.batch)
        self._journal: Journal | None = None
        self._last: CheckpointEvent | None = None
        self._rng: JsonValue = None
        self._pending: StepEvent | None = None
        self._held: list[StepEvent] = []  # steps of the open segment, while their points are not known
        self._replayed: list[dict[str, Any]] = []
        self._place = (0, 0)  # epoch and position of the last batch

    def __enter__(self) -> Self:
        try:
            if self.begun.replay is not None:
                self._enter_replay(self.begun.replay)
            else:
                self._enter_run()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.begun.replay is None:
                self._leave()
        finally:
            self._close()

    def batches(self, loader: Any) -> Iterator[Any]:
        """Yield the remaining batches in the committed order, from where the run stands to its last planned step.

        `loader`: a DataLoader (its dataset, `collate_fn`, `num_workers`, `pin_memory` are used, its order is not), or a
        map-style dataset, whose records come as lists. Raises `UsageError` if `step` was not called for a batch.
        """
        check_loader(loader, self._batch)
        check_size(loader, self._size)
        last = self.steps if self.begun.replay is None else self.begun.replay.last
        if self._rng is not None:  # what the program drew since `record` must not tell a resumed run from a whole one
            restore_rng(self._rng, what="checkpoint")
            self._rng = None
        for number, batch in fetch(loader, self._records(self.done + 1, last), self.begun.seed):
            self._pending = self._event(number)
            yield batch
            if self._pending is not None:
                raise UsageError(
                    f"step {number}: run.step() was not called after this batch; call it last in the loop's body"
                )

    def step(self, loss: Any = None, points: Points | None = None) -> None:
        """Record that the optimizer has stepped on the batch that `batches` gave. `loss`: number or one-element tensor.

        `points`: the step's KZG commitments, where the caller has them already. Raises `UsageError` for a loss that is
        not finite or a second call for one batch, `EnvironmentFailure` where the transcript cannot be written.
        """
        if self._pending is None:
            raise UsageError("run.step() without a batch: call it once for each batch of run.batches(loader)")
        event = self._pending.model_copy(update={"loss": loss_text(loss, self.done + 1), "points": points})
        if self.done == 0 and getattr(self.source, "has_stepped", True) is False:
            raise UsageError(
                "run.step(): the optimizer did not step on this batch, so there is no step to record; to accumulate"
                " gradients, set batch_size to all records of an update and split the batch in the loop's body"
            )
        self._pending = None
        self.done += 1
        self._place = (int(event.epoch), int(event.position))
        if points is None and hasattr(self.source, "points_for_segment"):
            self._held.append(event)
        else:
            self._write_step(event)
        if self.done % self._every == 0 or self.done == self.steps:
            self._flush()
            if self.begun.replay is None:
                self._checkpoint()
        if self.begun.replay is not None and self.done == self.begun.replay.last:
            replaying.finish(self.begun.replay, self._replayed, self._digests()[0], self.source)

    def _records(self, first: int, last: int) -> Iterator[tuple[int, list[int]]]:
        for number in range(first, last + 1):
            yield number, batch_records(self.begun.seed, self._size, self._batch, number)[2]

    def _event(self, number: int) -> StepEvent:
        epoch, position, records = batch_records(self.begun.seed, self._size, self._batch, number)
        return StepEvent(
            index="0", previous=FIRST_STATE, type="step", step=str(number), epoch=str(epoch), position=str(position),
            records=str(len(records)), batch_blake3=batch_digest(records),
        )  # fmt: skip

    def _write_step(self, event: StepEvent) -> None:
        fields = event.model_dump(exclude={"index", "previous", "points"}, exclude_none=True)
        if event.points is not None:
            fields["points"] = event.points
        if self._journal is not None:
            self._journal.append(StepEvent, **fields)
        else:
            self._replayed.append(event.model_dump(mode="json", exclude={"index", "previous"}, exclude_none=True))

    def _flush(self) -> None:
        """Write the steps that waited for their points."""
        if not self._held:
            return
        numbers = [int(event.step) for event in self._held]
        points: Sequence[Points] | None = getattr(self.source, "points_for_segment")(numbers)  # noqa: B009
        if points is None and self._journal is not None:
            raise UsageError("record: the state source gave no points; outside of a replay it must")
        if points is not None and len(points) != len(numbers):
            raise UsageError(f"record: the state source gave {len(points)} points for {len(numbers)} steps")
        for at, event in enumerate(self._held):
            self._write_step(event if points is None else event.model_copy(update={"points": points[at]}))
        self._held = []

    def _digests(self) -> tuple[dict[str, str], dict[str, JsonValue]]:
        """The digest of each component now, and the values of those that the recorder adds."""
        extra: dict[str, JsonValue] = {
            "rng": dict(capture_rng()),
            "cursor": dict(cursor_value(self.done, *self._place)),
        }
        return digests({**self.source.capture(), **extra}), extra

    def _checkpoint(self) -> None:
        if self._journal is None:
            return
        components, extra = self._digests()
        files = write_checkpoint(self.begun.run_dir, self.done, self.source, extra)
        previous = self._last.state_blake3 if self._last is not None else FIRST_STATE
        fields: dict[str, Any] = {
            "type": "checkpoint",
            "step": str(self.done),
            "components": components,
            "state_blake3": state_digest(components, self.done, self.precommit.config_blake3, previous),
            "previous_state_blake3": previous,
            "files": files,
        }
        index = self._journal.append(CheckpointEvent, **fields)
        self._journal.sync()
        self._last = CheckpointEvent(index=str(index), previous=FIRST_STATE, **fields)

    def _enter_run(self) -> None:
        changed = [
            text for text in differences(self.precommit.environment, capture()) if not text.startswith("variables.")
        ]
        if changed:
            raise Refused(f"record: the environment has changed since begin(): {changed[0]}; set it before begin()")
        self._journal = Journal(self.begun.run_dir)
        events = self._journal.transcript.events
        if not events:
            self._journal.append(
                StartEvent, type="start", precommit_sha256=self.precommit.sha256(), nonce=self.begun.nonce.hex(),
                nonce_source=self.precommit.seed_source,
            )  # fmt: skip
        checkpoints = [event for event in events if isinstance(event, CheckpointEvent)]
        if checkpoints:
            self._resume(checkpoints[-1])
        else:
            self._checkpoint()
            self._rng = dict(capture_rng())

    def _resume(self, event: CheckpointEvent) -> None:
        if self._journal is None:
            return
        transcript = self._journal.transcript
        _check_trusted_start(self.begun, transcript.events[0])
        check_files(self.begun.run_dir, event.files)
        self._load(self.begun.run_dir / checkpoint_name(int(event.step)), event)
        after = sum(isinstance(later, StepEvent) for later in transcript.events[int(event.index) + 1 :])
        torn = transcript.torn_bytes
        self._journal.append(
            ResumeEvent, type="resume", step=event.step, checkpoint_index=event.index, dropped_bytes=str(torn)
        )
        self._last = event
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
            except (
                Refused,
                Malformed,
            ) as error:  # the files are the committed ones: the program cannot have this state
                replaying.disagree(replay, str(error))
        elif not self.begun.seeded:
            replaying.take_generators(replay.run_dir / replaying.START_FOLDER / STATE_FILE)
        replaying.write_initial(replay, self._digests()[0])
        self._rng = dict(capture_rng())
        if replay.last == replay.first:
            replaying.finish(replay, [], self._digests()[0], self.source)

    def _load(self, folder: Path, event: CheckpointEvent) -> None:
        """Put a checkpoint's state back and check that it is the committed one. Raises `Refused`, `Malformed`."""
        path = folder / STATE_FILE
        document = read_state_document(path)
        self.done = int(event.step)
        if self.done:
            self._place = batch_records(self.begun.seed, self._size, self._batch, self.done)[:2]
        self.source.load(folder)
        restore_rng(document["rng"], what=str(path))
        self._rng = document["rng"]
        found = self._digests()[0]
        for name in sorted(event.components.keys() | found.keys()):
            if event.components.get(name) != found.get(name):
                raise Refused(
                    f"{folder}: component {name} has the digest {found.get(name, 'none')} after loading, committed is"
                    f" {event.components.get(name, 'none')}"
                )

    def _leave(self) -> None:
        if self._journal is None:
            return
        if self.done < self.steps or self._last is None:
            self._journal.sync()
            why = "" if self.done else " (no batch was taken: loop over run.batches(loader), not over the loader)"
            talk(f"stopped after step {self.done} of {self.steps}{why}; start the same command again to go on")
            return
        self._journal.append(
            EndEvent, type="end", step=str(self.done), state_blake3=self._last.state_blake3,
            model_blake3=self._last.components["model"],
        )  # fmt: skip
        self._journal.sync()
        late = late_modules(self.precommit.program)
        if late:
            talk(f"{late[0]} was loaded after the pre-commitment, so a replay lacks it; name it in code=")

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self.begun.close()


def _check_trusted_start(begun: Begun, event: object) -> None:
    """A transcript of another pre-commitment or nonce must not be continued under this one."""
    if (
        not isinstance(event, StartEvent)
        or event.precommit_sha256 != begun.precommit.sha256()
        or event.nonce != begun.nonce.hex()
    ):
        raise Refused(f"{begun.run_dir}: the transcript is not of this pre-commitment and nonce; use a new run folder")
