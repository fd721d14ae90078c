"""The transcript's chain, checked without torch and without data: order, states, cadence, resumption, end.

Spec: `specs/transcript.md`, "Verification". The walk follows the numbers of that section.

Shows: the events form one unbroken line from the start to the end of the run that the pre-commitment describes, each
step took the records that seed and order name, and the states are bound to each other, to the steps and to the config.
Does not show: that the states are what these steps give (replays and step proofs are for that), nor, where the records
came from a stream, that these were the ones.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from typing import Final

from pot.commitments.seed import run_seed
from pot.commitments.state import COMPONENTS, state_digest
from pot.errors import LimitExceeded
from pot.recording.checking.chain_result import PROBLEMS, ChainResult, Fork, Gap, Problem, Segment
from pot.recording.checking.expected import MAX_POSITIONS, FixedOrder, StreamOrder, expected_order
from pot.recording.cursor import cursor_digest
from pot.recording.precommit import Precommit, files_due, row_processes
from pot.recording.transcript import (
    ZERO_DIGEST,
    CheckpointEvent,
    EndEvent,
    Event,
    GapEvent,
    ResumeEvent,
    StartEvent,
    StepEvent,
    Transcript,
    previous_digest,
)
from pot.recording.writing.file_names import checkpoint_files, file_count

__all__ = ["PROBLEMS", "REQUIRED_COMPONENTS", "ChainResult", "Fork", "Gap", "Problem", "Segment", "check_chain"]

REQUIRED_COMPONENTS: Final = frozenset({"model", "rng", "cursor"})

_MAX_NAMES: Final = 16  # of files in one problem
_MAX_PROBLEMS: Final = 100  # a reader needs the first; a hostile file must not make a report of gigabytes


def check_chain(transcript: Transcript, precommit: Precommit, limit: int = MAX_POSITIONS) -> ChainResult:
    """Walk the events once and collect every problem (the first hundred). Never raises for what the events say.

    `limit`: positions of the order to compute; a run that needs more has the problem `limit`.
    """
    walk = _Walk(precommit, limit)
    walk.line = len(transcript.lines)
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
        if walk.problems and len(walk.problems) >= _MAX_PROBLEMS:
            break
    return walk.result(len(transcript.events))


class _Walk:
    def __init__(self, precommit: Precommit, limit: int) -> None:
        self.precommit = precommit
        self.line = 0
        self.problems: list[Problem] = []
        self._limit = limit
        self._planned = int(precommit.steps)
        self._every = int(precommit.checkpoint_every)
        self._cut = row_processes(precommit)
        self._order: FixedOrder | StreamOrder | None = None  # once the seed is known
        # one wrong batch is enough, and a transcript of wrong digests is cheap to write and dear to check
        self._checking = True
        self._at = 0  # the step that the state stands after
        self._since = False  # whether a step follows the latest checkpoint
        self._last: StepEvent | None = None
        self._checkpoints: list[tuple[int, CheckpointEvent]] = []
        self._kept: list[int] = []  # places in `_checkpoints` of those with files
        self._segments: list[Segment] = []
        self._open: list[StepEvent] = []  # steps after the latest checkpoint with files, and roots only
        self._roots: list[CheckpointEvent] = []
        self._abandoned: dict[int, StepEvent] = {}
        self._abandoned_roots: dict[int, CheckpointEvent] = {}
        self._dropped = 0
        self._forks: list[Fork] = []
        self._gap: Gap | None = None  # the line before
        self._gaps: list[Gap] = []
        self._end: EndEvent | None = None

    def problem(self, code: str, detail: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(Problem(code, f"line {self.line}: {detail}"))

    def take(self, event: Event) -> None:
        if self._end is not None:
            self.problem("end", "a line follows the end")
            return
        if self.line == 0 and not isinstance(event, StartEvent):
            self.problem("start", "the first line is not a start event")
            return
        if self._gap is not None and not isinstance(event, (CheckpointEvent, ResumeEvent)):
            self.problem("gap", f"no checkpoint follows the gap of step {self._gap.step}")
            self._gap = None
        if isinstance(event, StepEvent):  # nearly every line
            self._step(event)
        elif isinstance(event, CheckpointEvent):
            self._checkpoint(event)
        elif isinstance(event, GapEvent):
            self._gap_event(event)
        elif isinstance(event, ResumeEvent):
            self._resume(event)
        elif isinstance(event, EndEvent):
            self._finish(event)
        else:
            self._start(event)

    def result(self, events: int) -> ChainResult:
        if self._end is None:
            self.problem("unfinished", f"the run stopped after step {self._at} of {self._planned}")
        initial = self._checkpoints[0][1] if self._checkpoints else None
        return ChainResult(
            tuple(self._segments), events, tuple(self._forks), self._dropped, tuple(self.problems), initial, self._end,
            tuple(self._gaps),
        )  # fmt: skip

    def _start(self, event: StartEvent) -> None:  # 3. start
        if self.line != 0:
            self.problem("start", "a second start event")
            return
        expected = self.precommit.sha256()
        if event.precommit_sha256 != expected:
            self.problem("start", f"pre-commitment expected {expected}, found {event.precommit_sha256}")
        if event.nonce_source != self.precommit.seed_source:
            self.problem("start", f"nonce from {self.precommit.seed_source} expected, found {event.nonce_source}")
        self._order = expected_order(self.precommit, run_seed(expected, bytes.fromhex(event.nonce)), self._limit)

    def _step(self, event: StepEvent) -> None:
        expected = self._at + 1
        number = expected if event.step == str(expected) else int(event.step)
        if not self._checkpoints:
            self.problem("cadence", f"step {number} before the checkpoint of the initial state")
        elif self._since and self._at % self._every == 0:  # 5. cadence
            self.problem("cadence", f"no checkpoint after step {self._at}")
        earlier = self._abandoned.get(number) if self._abandoned else None
        same = earlier is not None and _content(earlier) == _content(event)
        if number != expected or number > self._planned:  # 4. steps
            self.problem("step-order", f"step {expected} of {self._planned} expected, found {number}")
        elif self._checking and self._order is not None and not same:  # one that stands already was checked there
            self._check_batch(self._order, event, number)
        if event.points and self._last and self._last.points and self._last.points.after != event.points.before:
            self.problem("points", f"step {number} does not begin at the point where step {self._last.step} ended")
        if earlier is not None and not same:  # 7. resumption
            self.problem("abandoned", f"step {number} differs from line {earlier.index}, which it repeats")
        self._open.append(event)
        self._last, self._at, self._since = event, number, True

    def _check_batch(self, order: FixedOrder | StreamOrder, event: StepEvent, number: int) -> None:
        try:
            different = order.differs(event, number, self._last)
        except LimitExceeded as error:
            self.problem("limit", f"step {number}: {error}")
            self._checking = False
            return
        if different is not None:
            self.problem("batch", f"step {number}: {different}")
            self._checking = False

    def _due(self, step: int) -> bool:
        return step % self._every == 0 or step == self._planned

    def _gap_event(self, event: GapEvent) -> None:
        step, self._gap = int(event.step), None
        due = step == self._at and self._since and self._due(step) and files_due(self.precommit, step)
        if not due or step == self._planned:
            self.problem("gap", f"a gap of step {step} after step {self._at}, where no files can be missing")
        else:
            self._gap = Gap(self.line, step, event.reason)

    def _checkpoint(self, event: CheckpointEvent) -> None:
        number, expected = int(event.step), self._at
        repeated = bool(self._checkpoints) and not self._since
        if number != expected or not self._due(number) or repeated:  # 5. cadence
            self.problem("cadence", f"a checkpoint of step {number} after step {expected} with one every {self._every}")
        previous = self._checkpoints[-1][1].state_blake3 if self._checkpoints else ZERO_DIGEST
        if event.previous_state_blake3 != previous:  # 6. states
            self.problem("state", f"previous state expected {previous}, found {event.previous_state_blake3}")
        if self._check_components(event, number):
            state = state_digest(event.components, number, self.precommit.config_blake3, event.previous_state_blake3)
            if event.state_blake3 != state:
                self.problem("state", f"state of step {number} expected {state}, found {event.state_blake3}")
        earlier = self._abandoned_roots.get(number) if self._abandoned_roots else None
        if earlier is not None and earlier.components != event.components:  # 7. resumption
            self.problem("abandoned", f"the state of step {number} differs from line {earlier.index}, which it repeats")
        self._checkpoints.append((self.line, event))
        self._since = False
        if event.files:
            self._keep(event)
        else:
            self._roots.append(event)
        if self._gap is not None:
            self._gaps.append(self._gap)
            self._gap = None

    def _keep(self, event: CheckpointEvent) -> None:
        """A checkpoint with files ends a segment and begins the next."""
        if self._kept and self._open:
            start, steps = self._checkpoints[self._kept[-1]][1], tuple(self._open)
            first, last = int(steps[0].step), int(steps[-1].step)
            self._segments.append(
                Segment(len(self._segments) + 1, first, last, start, event, steps, tuple(self._roots))
            )
        self._kept.append(len(self._checkpoints) - 1)
        self._open, self._roots = [], []

    def _check_components(self, event: CheckpointEvent, number: int) -> bool:
        """Whether a state digest can be computed at all."""
        names = event.components.keys()
        first = self._checkpoints[0][1].components if self._checkpoints else event.components
        if not REQUIRED_COMPONENTS <= names <= COMPONENTS:
            missing, unknown = sorted(REQUIRED_COMPONENTS - names), sorted(names - COMPONENTS)
            self.problem("components", f"missing: {', '.join(missing) or 'none'}; unknown: {len(unknown)}")
            return False
        if names != first.keys():
            self.problem("components", f"step {number} has other components than the first checkpoint")
        if number > self._planned:
            return False
        if event.components.get("frozen") != first.get("frozen"):
            self.problem("components", f"the frozen parameters of step {number} are not those of the first checkpoint")
        if names == first.keys():
            self._check_files(event, number)
        if self._order is None:
            return True
        cursor = cursor_digest(number, *self._order.cursor(number, self._last))
        if event.components["cursor"] != cursor:
            self.problem("components", f"cursor of step {number} expected {cursor}, found {event.components['cursor']}")
        return True

    def _check_files(self, event: CheckpointEvent, number: int) -> None:
        if self._gap is not None:
            if self._gap.step != number:
                self.problem("gap", f"no checkpoint follows the gap of step {self._gap.step}")
            elif event.files:
                self.problem("gap", f"step {number} has the files that the line before calls missing")
        elif not files_due(self.precommit, number):
            if event.files:
                self.problem("files", f"step {number} has files, but is to be a root only")
        else:
            files = sorted(file.path for file in event.files)
            count = file_count(event.components, processes=self._cut)
            if len(files) != count:  # names are made only where as many are there
                self.problem("files", f"step {number} has {len(files)} files, not {count}")
                return
            wanted = checkpoint_files(number, event.components, processes=self._cut)
            if not all(map(operator.contains, wanted, files)):
                names = ", ".join(min(paths) for paths in wanted[:_MAX_NAMES])
                self.problem("files", f"the files of step {number} are not {names}")

    def _resume(self, event: ResumeEvent) -> None:  # 7. resumption
        wanted, step = int(event.checkpoint_index), int(event.step)
        self._gap = None  # the run was stopped between a gap and its checkpoint
        at = bisect_left(self._checkpoints, wanted, key=lambda item: item[0])  # a scan for each would be quadratic
        found = at < len(self._checkpoints) and self._checkpoints[at][0] == wanted
        if not found or int(self._checkpoints[at][1].step) != step:
            self.problem("resume", f"line {wanted} is not a checkpoint of step {step} on this line of the run")
            return
        if not self._checkpoints[at][1].files:
            self.problem("resume", f"line {wanted} is a root only: there is no state to go on from")
            return
        kept = bisect_left(self._kept, at)
        if kept != len(self._kept) - 1:
            self._forks.append(Fork(self.line, step, self._at))
            self._dropped += sum(len(segment.steps) for segment in self._segments[kept:])
            del self._kept[kept + 1 :], self._segments[kept:]
            self._abandoned, self._abandoned_roots = {}, {}
        else:
            self._abandoned.update({int(item.step): item for item in self._open})
            self._abandoned_roots.update({int(item.step): item for item in self._roots})
        del self._checkpoints[at + 1 :]
        while self._gaps and self._gaps[-1].step > step:
            self._gaps.pop()
        self._dropped += len(self._open)
        self._open, self._roots, self._at, self._since = [], [], step, False
        self._last = self._segments[-1].steps[-1] if self._segments else None

    def _finish(self, event: EndEvent) -> None:  # 8. end
        last = self._checkpoints[-1][1] if self._checkpoints else None
        self._end = event
        if last is None or self._since or int(event.step) != self._planned or event.step != last.step:
            self.problem("end", f"the end names step {event.step}, of {self._planned} planned and {self._at} recorded")
        elif event.state_blake3 != last.state_blake3:
            self.problem("end", f"state expected {last.state_blake3}, found {event.state_blake3}")
        elif event.model_blake3 != last.components.get("model"):
            self.problem("end", f"model expected {last.components.get('model')}, found {event.model_blake3}")


def _content(event: StepEvent) -> tuple[object, ...]:
    return event.step, event.epoch, event.position, event.records, event.batch_blake3, event.loss, event.points
