"""A party to a dispute: its account of the run, and the replays of its program that the account is compared with.

Shows: nothing alone; `pot.audit.dispute` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pot.audit.replaying.comparison import Components, is_components, result_roots
from pot.audit.replaying.replay import Produced, Replayer
from pot.commitments.state import TensorEntry
from pot.errors import Refused, UsageError
from pot.recording.checking.chain import ChainResult, Segment
from pot.recording.checking.finished import load_run
from pot.recording.precommit import Precommit
from pot.recording.transcript import CheckpointEvent, StartEvent, Transcript

__all__ = ["Party", "answers", "load_party"]

_SLACK: Final = 1 << 20


@dataclass(frozen=True)
class Party:
    """One account of the run: its checked transcript, and what can replay it (None: the transcript alone is there)."""

    run_dir: Path
    precommit: Precommit
    transcript: Transcript
    chain: ChainResult
    replayer: Replayer | None = None

    def checkpoints(self) -> list[CheckpointEvent]:
        """All checkpoints in the order of their steps, those without files too."""
        found = [] if self.chain.initial is None else [self.chain.initial]
        for segment in self.chain.segments:
            found += [*segment.roots, segment.end_state]
        return found

    def nonce(self) -> str:
        """The nonce that the transcript begins with."""
        start = self.transcript.events[0]
        return start.nonce if isinstance(start, StartEvent) else ""

    def segment(self, step: int) -> Segment:
        """The segment that ends with `step` or holds it."""
        return next(segment for segment in self.chain.segments if step <= segment.last)

    def replays(self) -> Replayer:
        """What replays it. Raises `UsageError` where only its transcript is there."""
        if self.replayer is None:
            raise UsageError("dispute: this needs the run's files, its data and its code; give --data and --code")
        return self.replayer

    def replayed(self, produced: Produced, name: str, step: int) -> list[TensorEntry] | None:
        """The tensors of one component after `step`, of no more bytes than the committed states at hand explain."""
        events = (self.chain.segments[-1].end_state, self.segment(step).start_state)
        found = (self.replays().tensors(event, name) for event in events)
        claimed = next((tensors for tensors in found if tensors is not None), None)
        if claimed is None:  # lost: what a program writes in its place would be as large as it likes
            return None
        return produced.tensors(name, 2 * sum(len(entry.data) for entry in claimed) + _SLACK)


def load_party(run_dir: Path, replayer: Callable[[Precommit, str], Replayer] | None = None) -> Party:
    """Read one party's run directory; `replayer` makes what replays it. Raises as `load_run` does."""
    precommit, transcript, chain = load_run(run_dir)
    party = Party(run_dir, precommit, transcript, chain)
    return party if replayer is None else replace(party, replayer=replayer(precommit, party.nonce()))


def answers(produced: Produced, by: int) -> dict[int, Components]:
    """The digests that a program gave for its inner states and for the last one. Raises `Refused` where it failed."""
    if produced.result is None:
        raise Refused(
            f"dispute: a replay ended with exit code {produced.ended.code}:"
            f" {produced.disagreement or produced.ended.last_words or 'no message'}"
        )
    end = produced.result.get("components")
    found: dict[int, Components] = dict(result_roots(produced.result))
    if is_components(end):
        found[by] = end
    return found
