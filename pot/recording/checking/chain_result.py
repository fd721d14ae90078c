"""What a walk along a transcript's chain finds: problems with their codes, segments, forks and gaps.

Spec: `specs/transcript.md`, "Verification". Filled by `pot.recording.checking.chain.check_chain`.

Shows / does not show: nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pot.recording.transcript import CheckpointEvent, EndEvent, StepEvent

__all__ = ["PROBLEMS", "ChainResult", "Fork", "Gap", "Problem", "Segment"]

PROBLEMS: Final[dict[str, str]] = {
    "torn": "the last line is incomplete",
    "index": "a line's index is not its place",
    "previous": "a line's previous digest is not that of the line before it",
    "start": "the first line is not the start of this pre-commitment's run, or a second start follows",
    "step-order": "a step does not follow the one before it, or lies beyond the planned steps",
    "batch": "a step's batch is not the one that seed and order give",
    "limit": "checking the batches would take more positions of the order than this reader computes",
    "points": "a step does not begin at the point where the one before it ended",
    "cadence": "a checkpoint is missing, repeated, or at a step that the pre-commitment does not name",
    "components": "a checkpoint lacks a component, has an unknown one, a cursor of another step, or others frozen",
    "files": "a checkpoint lists other files than those of its components, or a root only lists some",
    "gap": "a gap where no files can be missing, or not directly before the checkpoint that lacks them",
    "state": "a state digest does not follow from its components, step, config and previous state",
    "resume": "a resumption names a line that is not a checkpoint with files of this run at that step",
    "abandoned": "a step or state that was repeated after an interruption did not come out the same",
    "end": "the end is not the last checkpoint after all planned steps, or lines follow it",
    "unfinished": "the transcript has no end",
}
"""Codes of `Problem`, and what each means."""


@dataclass(frozen=True)
class Problem:
    """One thing that is false: a code of `PROBLEMS`, and a sentence with the expected and the found value."""

    code: str
    detail: str


@dataclass(frozen=True)
class Fork:
    """The run went back behind its latest checkpoint with files: at line `index` to `step`, from step `abandoned`."""

    index: int
    step: int
    abandoned: int


@dataclass(frozen=True)
class Gap:
    """The files of the checkpoint of `step` are missing, as line `index` says, for this reason."""

    index: int
    step: int
    reason: str


@dataclass(frozen=True)
class Segment:
    """The steps `first`..`last` between two neighbouring checkpoints that have files; `index` counts from 1.

    `roots`: the checkpoints inside, which have none.
    """

    index: int
    first: int
    last: int
    start_state: CheckpointEvent
    end_state: CheckpointEvent
    steps: tuple[StepEvent, ...] = field(repr=False)
    roots: tuple[CheckpointEvent, ...] = field(default=(), repr=False)


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
    gaps: tuple[Gap, ...] = ()
