"""Where batches come from: the committed order over a map-style dataset, or a stream that is recorded as it comes.

A step takes `batch` records, in `accumulate` micro-batches: those of all processes, micro-batch by micro-batch and in
each process by process, stand one after the other in the step's records. Each feed yields `Fed` micro-batches and knows
the step event that the last of them completes.

Shows / does not show: see `pot.recording.run`; a stream's order is what the program made it, no seed fixes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from pydantic import JsonValue

from pot.commitments.order import batch_records
from pot.commitments.state import FIRST_STATE
from pot.errors import Refused, UsageError
from pot.recording.batches.content import content_digest, count_records
from pot.recording.batches.loading import check_loader, check_size, check_stream, fetch
from pot.recording.precommit import Precommit, total_records
from pot.recording.state import capture_rng, restore_rng
from pot.recording.transcript import StepEvent, batch_digest

__all__ = ["CommittedFeed", "Fed", "Feed", "StreamFeed", "feed_of"]


@dataclass(frozen=True)
class Fed:
    """One micro-batch. `event`: of the step that it completes, None where more micro-batches follow in the step."""

    step: int
    batch: Any
    event: StepEvent | None


class Feed(Protocol):
    """What `Run` asks of a source of batches."""

    def iterate(self, loader: Any, done: int, last: int) -> Iterator[Fed]:
        """Micro-batches of the steps after `done` up to `last`."""

    def place(self, step: int) -> tuple[int, int]:
        """Epoch and first position of a step's batch, for the cursor; (0, 0) for step 0."""

    def remembered(self) -> JsonValue:
        """What must be kept beside the generators to go on from here; None: nothing."""

    def recall(self, kept: Any, step: int, place: tuple[int, int]) -> None:
        """Take what `remembered` gave at a checkpoint of `step`."""


Swap = tuple[int, int, int]
"""Step, place in its batch, and the record that an auditor wants there instead, to measure what a forgery changes."""


def feed_of(precommit: Precommit, seed: bytes, process: int = 0, swap: Swap | None = None) -> Feed:
    """The feed that the pre-commitment names, for one of its processes."""
    if precommit.order.method == "stream/1":
        return StreamFeed(precommit)
    return CommittedFeed(precommit, seed, process, swap)


class CommittedFeed:
    """Batches in the committed order, by number: any step can be asked for."""

    def __init__(self, precommit: Precommit, seed: bytes, process: int = 0, swap: Swap | None = None) -> None:
        self.batch = int(precommit.order.batch)
        self.micro = int(precommit.order.micro or self.batch)
        self.processes = int(precommit.layout.processes) if precommit.layout is not None else 1
        self.accumulate = self.batch // (self.micro * self.processes)
        self._process = process
        self._seed = seed
        self._size = total_records(precommit)
        self._swap = swap

    def records(self, step: int) -> list[list[int]]:
        """The record numbers of this process's micro-batches of a step, in order."""
        numbers = batch_records(self._seed, self._size, self.batch, step)[2]
        if self._swap is not None and self._swap[0] == step and self._swap[1] < len(numbers):
            numbers = [*numbers[: self._swap[1]], self._swap[2] % self._size, *numbers[self._swap[1] + 1 :]]
        starts = range(self._process * self.micro, self.batch, self.processes * self.micro)
        return [numbers[start : start + self.micro] for start in starts]

    def event(self, step: int) -> StepEvent:
        """The event of a step, whose index and previous digest the journal fills in."""
        epoch, position, records = batch_records(self._seed, self._size, self.batch, step)
        return _event(step, epoch, position, len(records), batch_digest(records))

    def iterate(self, loader: Any, done: int, last: int) -> Iterator[Fed]:
        """See `Feed`. Raises `UsageError` for a loader that does not suit the committed order."""
        check_loader(loader, self.micro)
        check_size(loader, self._size)
        keyed = (
            (f"{step}" if self.accumulate * self.processes == 1 else f"{step}/{self._process}/{at}", step, at, numbers)
            for step in range(done + 1, last + 1)
            for at, numbers in enumerate(self.records(step))
        )
        for (step, at), batch in fetch(loader, keyed, self._seed):
            yield Fed(step, batch, self.event(step) if at == self.accumulate - 1 else None)

    def place(self, step: int) -> tuple[int, int]:
        """See `Feed`."""
        return batch_records(self._seed, self._size, self.batch, step)[:2] if step else (0, 0)

    def remembered(self) -> JsonValue:
        """Nothing: the order can be computed anywhere."""
        return None

    def recall(self, kept: Any, step: int, place: tuple[int, int]) -> None:
        """Nothing to take."""


class StreamFeed:
    """Batches as an iterable loader yields them. To go on, its current epoch is begun anew and passed over.

    So it must yield the same again from the same generators: one that draws from the global generators while training
    does so too will not, and is refused when a passed-over batch is not the recorded one.
    """

    def __init__(self, precommit: Precommit) -> None:
        self.batch = int(precommit.order.batch)
        self.micro = int(precommit.order.micro or self.batch)
        self.accumulate = self.batch // self.micro
        self._epoch = 0
        self._first = 0  # steps before this epoch
        self._generators: JsonValue = None  # at its beginning
        self._places: dict[int, tuple[int, int]] = {0: (0, 0)}
        self._yielded = 0
        self.passed: dict[int, str] = {}
        """Batch digests of steps that are passed over when the run goes on; what is known of them is compared."""

    def iterate(self, loader: Any, done: int, last: int) -> Iterator[Fed]:
        """See `Feed`. Raises `Refused` for a stream that yields other batches when it is begun anew."""
        check_stream(loader)
        step, resumed = done, done > self._first
        now = dict(capture_rng())
        if resumed:
            restore_rng(self._generators, what="stream")
        while step < last:
            if not resumed:
                self._first, self._generators = step, dict(capture_rng())
                self._yielded = 0
            batches = iter(loader)
            if resumed:
                self._pass_over(batches, done)
                restore_rng(now, what="stream")
                resumed = False
            for group in iter(lambda batches=batches: list(islice(batches, self.accumulate)), []):  # type: ignore[misc]
                if len(group) < self.accumulate:
                    break  # as the committed order does, an incomplete last step of an epoch is dropped
                step += 1
                yield from self._step(step, group)
                if step == last:
                    return
            if step == self._first:  # gone on from an epoch's end, there is nothing more in that epoch
                raise UsageError("run.batches: the stream yielded no whole step; is its data empty or used up?")
            self._epoch += 1

    def _step(self, step: int, group: list[Any]) -> Iterator[Fed]:
        counts = [count_records(batch, self.micro) for batch in group]
        found = [content_digest(batch) for batch in group]
        digest = found[0] if len(found) == 1 else content_digest(found)
        self._places = {step - 1: self._places.get(step - 1, (0, 0)), step: (self._epoch, self._yielded)}
        event = _event(step, self._epoch, self._yielded, sum(counts), digest)
        self._yielded += sum(counts)
        for at, batch in enumerate(group):
            yield Fed(step, batch, event if at == len(group) - 1 else None)

    def _pass_over(self, batches: Iterator[Any], done: int) -> None:
        self._yielded = 0
        for step in range(self._first + 1, done + 1):
            group = list(islice(batches, self.accumulate))
            events = [fed.event for fed in self._step(step, group) if fed.event is not None]
            known = self.passed.get(step)
            if len(group) < self.accumulate or (known is not None and events[0].batch_blake3 != known):
                raise Refused(
                    f"record: begun anew, the stream does not yield the batch of step {step} again, so the run cannot"
                    " go on; let the stream draw from a generator of its own"
                )

    def place(self, step: int) -> tuple[int, int]:
        """See `Feed`; known for the latest steps only."""
        return self._places[step]

    def remembered(self) -> JsonValue:
        """The steps before the current epoch, its number, and the generators at its beginning."""
        return {"epoch": str(self._epoch), "first": str(self._first), "generators": self._generators}

    def recall(self, kept: Any, step: int, place: tuple[int, int]) -> None:
        """See `Feed`. Raises `Refused` for what is not from a stream."""
        if not isinstance(kept, dict) or set(kept) != {"epoch", "first", "generators"}:
            raise Refused("checkpoint: it was not made by a run over a stream")
        self._epoch, self._first, self._generators = int(kept["epoch"]), int(kept["first"]), kept["generators"]
        self._places = {step: place}


def _event(step: int, epoch: int, position: int, records: int, digest: str) -> StepEvent:
    return StepEvent(
        index="0", previous=FIRST_STATE, type="step", step=str(step), epoch=str(epoch), position=str(position),
        records=str(records), batch_blake3=digest,
    )  # fmt: skip
