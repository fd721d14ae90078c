"""The program as its own replayer: with POT_REPLAY=FROM:TO set, the unmodified script repeats these steps and stops.

Variables: POT_REPLAY, POT_REPLAY_RUN (a folder with precommit.json, nonce.json and, unless FROM is 0, the folder
`start` with the start checkpoint), POT_REPLAY_OUT (an empty folder for what came out). Nothing else is there: a
program that could read the end state might copy it. The auditor (`pot.audit.replaying`) compares what is written here.

Two more things may be asked for: in the file roots.json beside them, a list of steps after which the digests of all
components are wanted (no variable holds many); and with POT_REPLAY_SWAP, one record of one batch to be exchanged, by
which an auditor measures what a small forgery looks like.

Shows: nothing; the auditor's comparison does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from pot.canonical import canonical_bytes, parse_canonical, read_file, write_file
from pot.errors import Malformed, Refused, UsageError
from pot.recording.config import first_difference
from pot.recording.environment import capture
from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit, SeedNonce
from pot.recording.state import StateSource, capture_rng, restore_rng, write_components

__all__ = [
    "DISAGREEMENT_FILE", "END_FOLDER", "ENVIRONMENT_FILE", "INITIAL_FILE", "MAX_ROOTS", "OUT_VARIABLE",
    "RESULT_FILE", "ROOTS_FILE", "RUN_VARIABLE", "START_FOLDER", "STEPS_VARIABLE", "SWAP_VARIABLE", "ReplayRange",
    "check_config", "disagree", "finish", "requested", "root", "staged", "take_generators", "write_initial",
]  # fmt: skip

STEPS_VARIABLE: Final = "POT_REPLAY"
RUN_VARIABLE: Final = "POT_REPLAY_RUN"
OUT_VARIABLE: Final = "POT_REPLAY_OUT"
SWAP_VARIABLE: Final = "POT_REPLAY_SWAP"
START_FOLDER: Final = "start"
END_FOLDER: Final = "end"
RESULT_FILE: Final = "replay.json"
INITIAL_FILE: Final = "initial.json"
ENVIRONMENT_FILE: Final = "environment.json"
DISAGREEMENT_FILE: Final = "disagreement.json"
_STEPS_LIMIT: Final = 10**15
ROOTS_FILE: Final = "roots.json"
MAX_ROOTS: Final = 1 << 20  # inner states of one segment whose digests can be asked for
_ROOT_BYTES: Final = 18  # a step's digits, its quotes and a comma
_NUMBER: Final = "(0|[1-9][0-9]{0,14})"


@dataclass(frozen=True)
class ReplayRange:
    """Replay the steps `first + 1` .. `last`, from the state after `first` steps.

    `roots`: steps after which `root` is to be called. `swap`: (step, place in the batch, global number of the record
    that is trained on in place of the committed one); the recorder honours it, and writes the events as they then are.
    """

    first: int
    last: int
    run_dir: Path
    out: Path
    roots: frozenset[int] = frozenset()
    swap: tuple[int, int, int] | None = None
    _found: dict[str, dict[str, str]] = field(default_factory=dict, repr=False, compare=False)


def requested() -> ReplayRange | None:
    """What the environment asks for; None in an ordinary run. Raises `UsageError` for a half-set request."""
    steps = os.environ.get(STEPS_VARIABLE)
    if steps is None:
        return None
    match = re.fullmatch(f"{_NUMBER}:{_NUMBER}", steps, re.ASCII)
    run_dir, out = os.environ.get(RUN_VARIABLE), os.environ.get(OUT_VARIABLE)
    if match is None or int(match[1]) > int(match[2]) or int(match[2]) >= _STEPS_LIMIT or not run_dir or not out:
        raise UsageError(
            f"{STEPS_VARIABLE} must be FROM:TO, with {RUN_VARIABLE} and {OUT_VARIABLE} set; 'pot audit' sets all three"
        )
    first, last = int(match[1]), int(match[2])
    return ReplayRange(first, last, Path(run_dir), Path(out), _roots(Path(run_dir), first, last), _swap(first, last))


def _roots(run_dir: Path, first: int, last: int) -> frozenset[int]:
    path = run_dir / ROOTS_FILE
    if not path.exists():
        return frozenset()
    limit = 2 + _ROOT_BYTES * MAX_ROOTS
    words = parse_canonical(read_file(path, limit=limit), what=str(path), limit=limit)
    if not isinstance(words, list) or len(words) > MAX_ROOTS or not all(map(_is_step, words)):
        raise UsageError(f'{path}: must be a list of at most {MAX_ROOTS} steps, such as ["12","17"]')
    steps = frozenset(int(str(word)) for word in words)
    if any(not first < step <= last for step in steps):
        raise UsageError(f"{path}: must name steps among {first + 1} to {last}, the replayed ones")
    return steps


def _is_step(word: object) -> bool:
    return isinstance(word, str) and re.fullmatch(_NUMBER, word, re.ASCII) is not None


def _swap(first: int, last: int) -> tuple[int, int, int] | None:
    text = os.environ.get(SWAP_VARIABLE)
    if text is None:
        return None
    match = re.fullmatch(f"{_NUMBER}:{_NUMBER}:{_NUMBER}", text, re.ASCII)
    if match is None or not first < int(match[1]) <= last:
        raise UsageError(f"{SWAP_VARIABLE} must be STEP:POSITION:RECORD, the step among {first + 1} to {last}")
    return int(match[1]), int(match[2]), int(match[3])


def staged(replay: ReplayRange) -> tuple[Precommit, bytes]:
    """The staged pre-commitment and nonce; the environment of this replay is written out for the comparison."""
    path = replay.run_dir / "precommit.json"
    precommit = Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path))
    path = replay.run_dir / "nonce.json"
    nonce = SeedNonce.from_value(parse_canonical(read_file(path, limit=4096), what=str(path)), what=str(path))
    return precommit, bytes.fromhex(nonce.nonce)


def check_config(replay: ReplayRange, precommit: Precommit, config: Mapping[str, Any]) -> None:
    """Stop where the committed program gives another configuration than the committed one."""
    difference = first_difference(precommit.config, dict(config))
    if difference is not None:
        disagree(replay, f"the program's configuration is not the committed one: {difference}")


def disagree(replay: ReplayRange, detail: str) -> NoReturn:
    """Write down what the program does unlike its pre-commitment, and stop. Raises `Refused`."""
    write_file(replay.out / DISAGREEMENT_FILE, canonical_bytes({"detail": detail[:500]}))
    raise Refused(f"replay: {detail}")


def take_generators(recorded: Any, what: str) -> None:
    """Python and NumPy seed themselves from the system unless told: without `begin`, take this recorded state."""
    if not isinstance(recorded, dict):
        raise Malformed(f"{what}: must hold the state of the random generators")
    taken = {name: recorded[name] for name in ("python", "numpy") if name in recorded}
    restore_rng({**capture_rng(), **taken}, what=what)


def write_initial(replay: ReplayRange, components: Mapping[str, str]) -> None:
    """Write the digests of the state that training starts from (regenerated if FROM is 0), and the environment."""
    write_file(replay.out / ENVIRONMENT_FILE, canonical_bytes(capture()))
    write_file(replay.out / INITIAL_FILE, canonical_bytes(dict(components)))


def root(replay: ReplayRange, step: int, components: Mapping[str, str]) -> None:
    """Keep the digests of the state after `step`, a step of `replay.roots`, for `finish` to write."""
    replay._found[str(step)] = dict(components)


def finish(
    replay: ReplayRange, steps: list[dict[str, Any]], components: Mapping[str, str], source: StateSource | None
) -> NoReturn:
    """Write what came out and end the program: nothing after the last replayed step belongs to the replay.

    `source`: whose end state is written, for the first tensor that differs, and for distances; None: it lies there.
    """
    if source is not None:
        end = replay.out / END_FOLDER
        end.mkdir()
        write_components(end, source.capture())
    result = {"steps": steps, "components": dict(components), "roots": replay._found}
    write_file(replay.out / RESULT_FILE, canonical_bytes(result))
    raise SystemExit(0)
