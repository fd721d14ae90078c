"""What a replayed program is asked for, and what it leaves: documents and an end state that nobody has checked yet.

Spec: `specs/transcript.md`, "Audit". The program is the prover's. Whatever it leaves is read strictly, up to a size,
and never through a link: the auditor can read the committed end states, and a link there would copy them.

Shows: nothing; `pot.audit.replaying.comparison` does.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pot.audit.replaying.comparison import cut, is_components
from pot.audit.replaying.sandbox import Ended
from pot.canonical import parse_canonical, read_file
from pot.commitments.sharded import join_entries
from pot.commitments.state import TensorEntry, entries_from_safetensors
from pot.errors import PotError
from pot.recording import replaying
from pot.recording.precommit import Program
from pot.recording.state import read_state_file
from pot.recording.transcript import CheckpointEvent
from pot.recording.writing.file_names import shard_name

__all__ = ["SLACK", "Produced", "Request", "asked", "lost_input", "read_out"]

SLACK: Final = 1 << 20
"""Bytes that the program may write beyond what the committed segment explains."""

_STEP_BYTES: Final = 4096
_NO_FILE: Final = re.compile(r"FileNotFoundError: .*'([^']+)'\Z")
_DETAIL_BYTES: Final = 500


@dataclass(frozen=True)
class Request:
    """What a program is asked to repeat: the steps after `first`, to `last`, from `start`.

    `roots`: steps whose state's digests are wanted. `swap`: step, place in its batch and another record. `variables`:
    set for this run only.
    """

    first: int
    last: int
    start: CheckpointEvent | None
    roots: Collection[int] = ()
    swap: tuple[int, int, int] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Produced:
    """What a program wrote. `folder` (untrusted) holds its end state, and goes when the replay's context ends."""

    ended: Ended
    folder: Path
    disagreement: str | None
    initial: dict[str, str] | None
    environment: dict[str, Any] | None
    result: dict[str, Any] | None
    processes: int = 1
    """Among which the end state's tensors are cut by rows."""

    def complete(self) -> bool:
        """Whether all three documents are there."""
        return self.initial is not None and self.environment is not None and self.result is not None

    def tensor_file(self, component: str, limit: int) -> Path | None:
        """The file of a component of the end state; None where the program wrote none, or above `limit` bytes."""
        path = self.folder / replaying.END_FOLDER / f"{component}.safetensors"
        if not _folder(path.parent) or not _file(path):
            return None
        return path if os.lstat(path).st_size <= limit else None

    def tensors(self, component: str, limit: int) -> list[TensorEntry] | None:
        """Its tensors; None where it is not there, or no file of tensors."""
        names = [component]
        if self.processes > 1:
            names = [shard_name(component, rank, self.processes).rpartition(".")[0] for rank in range(self.processes)]
        paths = [self.tensor_file(name, limit) for name in names]
        try:
            parts = [entries_from_safetensors(read_state_file(path), what=path.name) for path in paths if path]
            if len(parts) < len(paths):
                return None
            return parts[0] if len(parts) == 1 else join_entries(parts)
        except PotError:  # of the program's making: no state to compare with
            return None


def asked(request: Request) -> dict[str, str]:
    """The variables by which the program is asked; the roots are asked for in a file (`Staging`)."""
    found = {replaying.STEPS_VARIABLE: f"{request.first}:{request.last}"}
    if request.swap is not None:
        found[replaying.SWAP_VARIABLE] = ":".join(str(number) for number in request.swap)
    return found


def lost_input(last_words: str, program: Program) -> str:
    """What to add to a program's last words where they name a file that the run did not pre-commit; "" otherwise."""
    found = _NO_FILE.search(last_words)
    if found is None:
        return ""
    name = found[1].removeprefix("./")
    if name in {*(file.path for file in program.files), *(file.path for file in program.data_files)}:
        return ""
    return "; the run pre-committed no such input (inputs=), so it is not there in a replay"


def read_out(ended: Ended, out: Path | None, steps: int, processes: int = 1) -> Produced:
    """Read what a program left in `out` after `steps` steps; None where no folder lies there any more."""
    if out is None:
        return Produced(ended, Path(), None, None, None, None)
    disagreement = _read(out / replaying.DISAGREEMENT_FILE)
    initial, environment = _read(out / replaying.INITIAL_FILE), _read(out / replaying.ENVIRONMENT_FILE)
    result = _read(out / replaying.RESULT_FILE, SLACK + _STEP_BYTES * steps)
    return Produced(
        ended,
        out,
        cut(str(disagreement.get("detail")), _DETAIL_BYTES) if isinstance(disagreement, dict) else None,
        initial if is_components(initial) else None,
        environment if isinstance(environment, dict) else None,
        result if isinstance(result, dict) else None,
        processes,
    )


def _read(path: Path, limit: int = SLACK) -> Any:
    """What the program wrote, strictly read; None where it is absent, too large, or no document of ours."""
    if not _file(path):
        return None
    try:
        return parse_canonical(read_file(path, limit=limit), what=path.name, limit=limit)
    except PotError:
        return None


def _file(path: Path) -> bool:
    return _is(path, stat.S_ISREG)


def _folder(path: Path) -> bool:
    return _is(path, stat.S_ISDIR)


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether a path is of a kind by itself: a link would lead the auditor where the program cannot look."""
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return False
