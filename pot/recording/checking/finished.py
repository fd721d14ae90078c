"""A finished run, as everything that comes after training reads it: its documents, and a chain that holds.

Spec: `specs/transcript.md`, "Verification".

Shows: what `pot.recording.checking.chain` shows, for a run that was trained to its end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pot.canonical import read_file
from pot.errors import Refused, Undecided
from pot.recording.begin import PRECOMMIT_FILE
from pot.recording.checking.chain import ChainResult, check_chain
from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit
from pot.recording.transcript import Transcript, load_transcript

__all__ = ["load_run"]

_STOPPED: Final = frozenset({"unfinished", "torn"})


def load_run(run_dir: Path) -> tuple[Precommit, Transcript, ChainResult]:
    """Read and check a finished run.

    Raises `Refused` with the first problem of a chain that does not hold, `Undecided` for a run that is not finished.
    """
    path = run_dir / PRECOMMIT_FILE
    precommit = Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path))
    transcript = load_transcript(run_dir)
    chain = check_chain(transcript, precommit)
    if chain.problems:
        first = next((problem for problem in chain.problems if problem.code not in _STOPPED), None)
        if first is None:
            how = chain.problems[-1].detail.partition(": ")[2]
            raise Undecided(f"{run_dir}: is not finished: {how}; start the training command again and let it end")
        raise Refused(f"{run_dir}: the transcript does not hold: {first.code}: {first.detail}")
    return precommit, transcript, chain
