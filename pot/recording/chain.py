"""The transcript's chain, checked without torch and without data: order, states, cadence, resumption, end.

Spec: `specs/transcript.md`, "Verification". The walk follows the numbers of that section.

Shows: the events form one unbroken line from the start to the end of the run that the pre-commitment describes, each
step took the records that seed and order name, and the states are bound to each other, to the steps and to the config.
Does not show: that the states are what these steps give; replays and step proofs are for that.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.commitments.state import COMPONENTS, json_digest, state_digest
from pot.recording.precommit import Precommit, total_records
from pot.recording.state import checkpoint_files
from pot.recording.transcript import (
    ZERO_DIGEST,
    CheckpointEvent,
    EndEvent,
    ResumeEvent,
    StartEvent,
    StepEvent,
    Transcript,
    batch_digest,
    previous_digest,
)

__all__ = ["PROBLEMS", "REQUIRED_COMPONENTS", "ChainResult", "Fork", "Problem", "Segment", "check_chain",
           "cursor_value"]  # fmt: skip

REQUIRED_COMPONENTS: Final = frozenset({"model", "rng", "cursor"})

PROBLEMS: Final[dict[str, str]] = {
    "torn": "the last line is incomplete",
    "index": "a line's index is not its place",
    "previous": "a line's previous digest is not that of the line before it",
    "start": "the first line is not the start of this pre-commitment's run, or a second start follows",
    "step-order": "a step does not follow the one before it, or lies beyond the planned steps",
    "batch": "a step's batch is not the one that seed and order give",
    "points": "a step does not begin at the point where the one before it ended",
    "cadence": "a checkpoint is missing, repeated, or at a step that the pre-commitment does not name",
    "components": "a checkpoint lacks a component, has an unknown one, or a cursor of another step",
    "files": "a checkpoint lists other files than those of its components",
    "state": "a state digest does not follow from its components, step, config and previous state",
    "resume": "a resumption names a line that is not a checkpoint of this run at that step",
    "abandoned": "a step that was repeated after an interruption did not come out the same",
    "end": "the end is not the last checkpoint after all planned steps, or lines follow it",
    "unfinished": "the transcript has no end",
}
"""Codes of `Problem`, and what each means."""

_MAX_PROBLEMS: Final = 100  # a reader needs the first; a hostile file must not make a report of gigabytes


@dataclass(frozen=True)
class Problem:
    """One thing that is false: a code of `PROBLEMS`, and a sentence with the expected and the found value."""

    code: str
    detail: str


@dataclass(frozen=True)
class Fork:
    """The run went back behind its latest checkpoint: at line `index` to `step`, leaving steps up to `abandoned`."""

    index: int
    step: int
    abandoned: int


@dataclass(frozen=True)
class Segment:
    """The steps `first`..`last` between two neighbouring checkpoints; `index` counts from 1."""

    index: int
    first: int
    last: int
    start_state: CheckpointEvent
    end_state: CheckpointEvent
    steps: tuple[StepEvent, ...] = field(repr=False)


@dataclass(frozen=True)
class ChainResult:
    """What the walk found. The chain holds iff `problems` is empty; forks are told apart and always reported."""

    segments: tuple[Segment, ...]
    events: int
    forks: tuple[Fork, ...]
    dropped: int
    problems: tuple[Problem, ...]
    initial: CheckpointEvent | None
    end: EndEvent | None


def cursor_value(step: int, epoch: int, position: int) -> dict[str, str]:
    """The `cursor` component after `step` steps: epoch and position of the last batch's first record (0, 0 at 0)."""
    return {"epoch": str(epoch), "position": str(position), "step": str(step)}


def check_chain(transcript: Transcript, precommit: Precommit) -> ChainResult:
    """Walk the events once and collect every problem (the first hundred). Never raises for what the events say."""
    import numpy  # noqa: F401  # with it loaded, batches of large data are computed by whole arrays

    walk = _Walk(precommit)
    if transcript.torn_bytes:
        walk.problem("torn", f"{transcript.torn_bytes} bytes of a last line without newline")
    previous = ZERO_DIGEST
    for number, (line, event) in enumerate(zip(transcript.lines, transcript.events, strict=True)):
        walk.line = number
        if event.index != str(number):  # 1. index
            walk.problem("index", f"expected {number}, found {event.index}")
        if event.previous != previous:  # 2. previous digest
            walk.problem("previous", f"expected {previous}, found {event.previous}")
        previous = previous_digest(line)
        walk.take(event)
        if len(walk.problems) >= _MAX_PROBLEMS:
            break
    return walk.result(len(transcript.events))


class _Walk:
    def __init__(self, precommit: Precommit) -> None:
        self.precommit = precommit
        self.line = 0
        self.problems: list[Problem] = []
        self._size = total_records(precommit)
        self._batch = int(precommit.order.batch)
        self._planned = int(precommit.steps)
        self._every = int(precommit.checkpoint_every)
        self._seed: bytes | None = None
        self._checkpoints: list[tuple[int, CheckpointEvent]] = []
        self._segments: list[Segment] = []
        self._open: list[StepEvent] = []
        self._abandoned: dict[int, StepEvent] = {}
        self._dropped = 0
        self._forks: list[Fork] = []
        self._end: EndEvent | None = None

    def problem(self, code: str, detail: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(Problem(code, f"line {self.line}: {detail}"))

    def take(self, event: object) -> None:
        if self._end is not None:
            self.problem("end", "a line follows the end")
        elif self.line == 0 and not isinstance(event, StartEvent):
            self.problem("start", "the first line is not a start event")
        elif isinstance(event, StartEvent):
            self._start(event)
        elif isinstance(event, CheckpointEvent):
            self._checkpoint(event)
        elif isinstance(event, StepEvent):
            self._step(event)
        elif isinstance(event, ResumeEvent):
            self._resume(event)
        elif isinstance(event, EndEvent):
            self._finish(event)

    def result(self, events: int) -> ChainResult:
        if self._end is None:
            self.problem("unfinished", f"the run stopped after step {self._at()} of {self._planned}")
        initial = self._checkpoints[0][1] if self._checkpoints else None
        return ChainResult(
            tuple(self._segments), events, tuple(self._forks), self._dropped, tuple(self.problems), initial, self._end
        )

    def _at(self) -> int:
        if self._open:
            return int(self._open[-1].step)
        return int(self._checkpoints[-1][1].step) if self._checkpoints else 0

    def _start(self, event: StartEvent) -> None:  # 3. start
        if self.line != 0:
            self.problem("start", "a second start event")
            return
        expected = self.precommit.sha256()
        if event.precommit_sha256 != expected:
            self.problem("start", f"pre-commitment expected {expected}, found {event.precommit_sha256}")
        if event.nonce_source != self.precommit.seed_source:
            self.problem("start", f"nonce from {self.precommit.seed_source} expected, found {event.nonce_source}")
        self._seed = run_seed(expected, bytes.fromhex(event.nonce))

    def _step(self, event: StepEvent) -> None:
        number, expected = int(event.step), self._at() + 1
        if not self._checkpoints:
            self.problem("cadence", f"step {number} before the checkpoint of the initial state")
        elif self._open and self._due(expected - 1):  # 5. cadence
            self.problem("cadence", f"no checkpoint after step {expected - 1}")
        if number != expected or number > self._planned:  # 4. steps
            self.problem("step-order", f"step {expected} of {self._planned} expected, found {number}")
        elif self._seed is not None:
            self._check_batch(event, number)
        before = self._open[-1] if self._open else self._last_step()
        if before is not None and before.points and event.points and before.points.after != event.points.before:
            self.problem("points", f"step {number} does not begin at the point where step {before.step} ended")
        earlier = self._abandoned.get(number)
        if earlier is not None and _content(earlier) != _content(event):  # 7. resumption
            self.problem("abandoned", f"step {number} differs from line {earlier.index}, which it repeats")
        self._open.append(event)

    def _last_step(self) -> StepEvent | None:
        return self._segments[-1].steps[-1] if self._segments and self._segments[-1].steps else None

    def _check_batch(self, event: StepEvent, number: int) -> None:
        if any(problem.code == "batch" for problem in self.problems):
            return  # one is enough, and a transcript of wrong digests is cheap to write and dear to check
        epoch, position, records = batch_records(self._seed or b"", self._size, self._batch, number)
        expected = (str(epoch), str(position), str(len(records)), batch_digest(records))
        found = (event.epoch, event.position, event.records, event.batch_blake3)
        if found != expected:
            names = ("epoch", "position", "records", "batch_blake3")
            which = next(name for name, a, b in zip(names, expected, found, strict=True) if a != b)
            at = names.index(which)
            self.problem("batch", f"step {number}: {which} expected {expected[at]}, found {found[at]}")

    def _due(self, step: int) -> bool:
        return step % self._every == 0 or step == self._planned

    def _checkpoint(self, event: CheckpointEvent) -> None:
        number, expected = int(event.step), self._at()
        repeated = bool(self._checkpoints) and not self._open
        if number != expected or not self._due(number) or repeated:  # 5. cadence
            self.problem("cadence", f"a checkpoint of step {number} after step {expected} with one every {self._every}")
        previous = self._checkpoints[-1][1] if self._checkpoints else None
        before = previous.state_blake3 if previous else ZERO_DIGEST
        if event.previous_state_blake3 != before:  # 6. states
            self.problem("state", f"previous state expected {before}, found {event.previous_state_blake3}")
        if self._check_components(event, number):
            state = state_digest(event.components, number, self.precommit.config_blake3, event.previous_state_blake3)
            if event.state_blake3 != state:
                self.problem("state", f"state of step {number} expected {state}, found {event.state_blake3}")
        if previous is not None and not repeated:
            steps = tuple(self._open)
            self._segments.append(
                Segment(len(self._segments) + 1, int(steps[0].step), int(steps[-1].step), previous, event, steps)
            )
        self._checkpoints.append((self.line, event))
        self._open = []
        self._abandoned = {}

    def _check_components(self, event: CheckpointEvent, number: int) -> bool:
        """Whether a state digest can be computed at all."""
        names = set(event.components)
        missing, unknown = sorted(REQUIRED_COMPONENTS - names), sorted(names - COMPONENTS)
        if missing or unknown:
            self.problem("components", f"missing: {', '.join(missing) or 'none'}; unknown: {len(unknown)}")
        first = self._checkpoints[0][1].components if self._checkpoints else event.components
        if not missing and not unknown and names != set(first):
            self.problem("components", f"step {number} has other components than the first checkpoint")
        if missing or unknown or number > self._planned:
            return False
        wanted, files = checkpoint_files(number, names), sorted(file.path for file in event.files)
        own = len(files) == len(wanted) and all(path in paths for path, paths in zip(files, wanted, strict=True))
        if not own and names == set(first):
            self.problem("files", f"the files of step {number} are not {', '.join(min(paths) for paths in wanted)}")
        if self._seed is None:
            return True
        epoch, position = batch_records(self._seed, self._size, self._batch, number)[:2] if number else (0, 0)
        cursor = json_digest("cursor", cursor_value(number, epoch, position))
        if event.components["cursor"] != cursor:
            self.problem("components", f"cursor of step {number} expected {cursor}, found {event.components['cursor']}")
        return True

    def _resume(self, event: ResumeEvent) -> None:  # 7. resumption
        wanted, step = int(event.checkpoint_index), int(event.step)
        at = bisect_left(self._checkpoints, wanted, key=lambda item: item[0])  # a scan for each would be quadratic
        place = at if at < len(self._checkpoints) and self._checkpoints[at][0] == wanted else None
        if place is None or int(self._checkpoints[place][1].step) != step:
            self.problem("resume", f"line {wanted} is not a checkpoint of step {step} on this line of the run")
            return
        if place != len(self._checkpoints) - 1:
            self._forks.append(Fork(self.line, step, self._at()))
            self._dropped += sum(len(segment.steps) for segment in self._segments[place:])
            del self._checkpoints[place + 1 :], self._segments[place:]
            self._abandoned = {}
        else:
            self._abandoned.update({int(step.step): step for step in self._open})
        self._dropped += len(self._open)
        self._open = []

    def _finish(self, event: EndEvent) -> None:  # 8. end
        last = self._checkpoints[-1][1] if self._checkpoints else None
        self._end = event
        if last is None or self._open or int(event.step) != self._planned or event.step != last.step:
            self.problem(
                "end", f"the end names step {event.step}, of {self._planned} planned and {self._at()} recorded"
            )
        elif event.state_blake3 != last.state_blake3:
            self.problem("end", f"state expected {last.state_blake3}, found {event.state_blake3}")
        elif event.model_blake3 != last.components.get("model"):
            self.problem("end", f"model expected {last.components.get('model')}, found {event.model_blake3}")


def _content(event: StepEvent) -> tuple[object, ...]:
    return event.step, event.epoch, event.position, event.records, event.batch_blake3, event.loss, event.points
