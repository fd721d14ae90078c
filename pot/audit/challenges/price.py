"""What a challenge costs to answer: the segments and steps to repeat, the time that takes, the files that are needed.

Spec: `specs/transcript.md`, "Challenge". A transcript holds no clock. So the time of a step is either told by whoever
measured it, or estimated from when the run's checkpoint files were last written, and named an estimate. What
starting a process with its imports takes is told too, or a plain guess, and named so.

Shows: which segments a challenge falls into, which of the run's files an auditor needs for them, which are lost.
Does not show: how fast the auditor's machine is; that the times of files were not changed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from pot.audit.challenges.challenge import Challenge
from pot.errors import PotError
from pot.recording.begin import COMMITMENTS_FOLDER, NONCE_FILE, PRECOMMIT_FILE
from pot.recording.checking.chain import ChainResult, Segment
from pot.recording.precommit import Precommit
from pot.recording.state import check_files
from pot.recording.transcript import TRANSCRIPT_FILE, CheckpointEvent, StateFile

__all__ = [
    "START_SECONDS", "Lost", "Price", "challenged_segments", "lost_files", "needed_files", "price", "seconds_per_step",
]  # fmt: skip

START_SECONDS: Final = 5.0
"""What starting a process with PyTorch takes on a machine that does something else as well, unless told otherwise."""


@dataclass(frozen=True)
class Price:
    """What repeating some segments costs. `seconds`: of one step; None where nobody told and no file could tell.

    `starts`: how often a process of the program is started for it, each time with its imports and its data;
    `start_seconds`: what one of these takes, `start_estimated` if nobody measured it.
    """

    segments: int
    steps: int
    seconds: float | None
    estimated: bool
    starts: int
    start_seconds: float = START_SECONDS
    start_estimated: bool = True

    @property
    def minutes(self) -> float | None:
        """Training time of all these steps on one machine like the run's, in minutes; `start_minutes` come on top."""
        return None if self.seconds is None else self.seconds * self.steps / 60

    @property
    def start_minutes(self) -> float:
        """What all starts take one after the other, in minutes."""
        return self.start_seconds * self.starts / 60


@dataclass(frozen=True)
class Lost:
    """A file that an auditor needs and that is not there, or not as committed."""

    path: str
    reason: str


def challenged_segments(challenge: Challenge, chain: ChainResult) -> list[Segment]:
    """The segments that hold the chosen units, ascending: a chosen step is repeated with its whole segment."""
    if challenge.unit == "segment":
        return [chain.segments[int(number) - 1] for number in challenge.chosen]
    ends = [segment.last for segment in chain.segments]
    return [chain.segments[at] for at in sorted({bisect_left(ends, int(number)) for number in challenge.chosen})]


def price(
    segments: Sequence[Segment],
    seconds: float | None,
    *,
    estimated: bool,
    processes: int = 1,
    start_seconds: float | None = None,
) -> Price:
    """The price of repeating these segments at `seconds` a step; `processes`: that the run trained in together.

    `start_seconds`: what starting one takes; None: `START_SECONDS`.
    W_0 is made again in any case: with the first segment if that is among them, else by a start of its own.
    """
    replays = len(segments) + all(segment.index != 1 for segment in segments)
    steps = sum(segment.last - segment.first + 1 for segment in segments)
    start = START_SECONDS if start_seconds is None else start_seconds
    return Price(len(segments), steps, seconds, estimated, replays * processes, start, start_seconds is None)


def seconds_per_step(run_dir: Path, chain: ChainResult) -> float | None:
    """An estimate: the median over all segments of the time between their checkpoints' files, a step; None without.

    Files that were copied without their times give none, or a wrong one: this is for planning, nothing rests on it.
    """
    found: list[float] = []
    before: float | None = None
    for segment in chain.segments:
        before = _written(run_dir, segment.start_state) if before is None else before
        after = _written(run_dir, segment.end_state)
        if before is not None and after is not None and after > before:
            found.append((after - before) / (segment.last - segment.first + 1))
        before = after
    return median(found) if found else None


def _written(run_dir: Path, event: CheckpointEvent) -> float | None:
    """When the last of a checkpoint's files was written, in seconds of Unix time."""
    try:
        return max((run_dir / file.path).lstat().st_mtime for file in event.files)
    except (OSError, ValueError):
        return None


def needed_files(precommit: Precommit, segments: Sequence[Segment]) -> list[str]:
    """Paths below the run directory that an auditor needs: the run's documents, and each segment's start state.

    The initial state is made again from the seed, but its generators may be needed, so its files are asked for too.
    """
    documents = [PRECOMMIT_FILE, NONCE_FILE, TRANSCRIPT_FILE]
    documents += [f"{COMMITMENTS_FOLDER}/{item.name}.json" for item in precommit.data]
    return [*documents, *(file.path for file in _start_files(segments))]


def lost_files(run_dir: Path, precommit: Precommit, segments: Sequence[Segment]) -> list[Lost]:
    """Which of `needed_files` are missing, or do not have the committed bytes."""
    names = needed_files(precommit, segments)
    lost = [Lost(name, "missing") for name in names[: 3 + len(precommit.data)] if not (run_dir / name).is_file()]
    for file in _start_files(segments):
        try:
            check_files(run_dir, [file])
        except PotError:
            there = (run_dir / file.path).is_file()
            lost.append(Lost(file.path, "not the committed file" if there else "missing"))
    return lost


def _start_files(segments: Sequence[Segment]) -> list[StateFile]:
    return [file for segment in segments for file in segment.start_state.files]
