"""Replay: the committed program repeats one segment from its committed start state, and the events are compared.

The staging folder holds only the pre-commitment, the nonce, code and data checked by SHA-256, and the start state,
written anew from what its digests cover, so that no byte beside them reaches the program. The program
(`pot.recording.replaying`) writes what came out, and every bit of it must equal the committed events.

Shows: from the committed start state, code, data and environment, the committed steps give the committed end state.
Does not show: that training happened this way historically, nor that the code is benign.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pot.audit.sandbox import Ended, Isolation, Limits, isolation, run_limited
from pot.canonical import parse_canonical, read_file
from pot.commitments.state import entries_from_safetensors
from pot.errors import Malformed, PotError, Refused, UsageError
from pot.recording import replaying
from pot.recording.begin import NONCE_FILE, PRECOMMIT_FILE
from pot.recording.chain import Segment
from pot.recording.environment import differences, variables
from pot.recording.precommit import Precommit, SeedNonce
from pot.recording.program import file_sha256
from pot.recording.state import check_files, copy_checkpoint, read_state_file
from pot.recording.transcript import CheckpointEvent, StepEvent

__all__ = ["Outcome", "PointsOutcome", "Replay", "Replayer", "replay_segment"]

Outcome = Literal["MATCH", "MISMATCH", "INCONCLUSIVE", "TIMEOUT", "REFUSED"]
PointsOutcome = Literal["MATCH", "MISMATCH", "NOT_CHECKED"]

_SLACK: Final = 1 << 20  # bytes that the program may write beyond what the committed segment explains
_STEP_BYTES: Final = 4096
_STEP_FIELDS: Final = ("step", "epoch", "position", "records", "batch_blake3", "loss")
_ORDER_FIELDS: Final = frozenset(_STEP_FIELDS) - {"loss"}  # no environment changes these


@dataclass(frozen=True)
class Replay:
    """What a replay gave. `initial` and `environment` are what the program reported, where it came that far."""

    outcome: Outcome
    detail: str = ""
    first_difference: str | None = None
    points: PointsOutcome = "NOT_CHECKED"
    isolation: Isolation = "none"
    initial: dict[str, str] | None = field(default=None, repr=False)
    environment: dict[str, Any] | None = field(default=None, repr=False)


class Replayer:
    """Replays segments of one run. Data and code are matched by SHA-256 once, when it is made."""

    def __init__(
        self,
        run_dir: Path,
        precommit: Precommit,
        nonce: str,
        data: Sequence[Path],
        code: Path,
        *,
        limits: Limits | None = None,
        hidden: Sequence[Path] = (),
    ) -> None:
        """`data`: files or folders that hold the program's inputs; `code`: the folder of its code."""
        self.run_dir = run_dir
        self.precommit = precommit
        self.limits = limits if limits is not None else Limits()
        self._nonce = nonce
        place = Path(tempfile.mkdtemp(prefix="pot-replay-")).resolve()
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        self._hidden = [run_dir, *hidden]
        if any(place.is_relative_to(path.resolve()) for path in self._hidden):
            raise UsageError("replay: the temporary folder lies inside the run directory; set TMPDIR elsewhere")
        # the start of the next segment is the answer of this one: stagings lie in one folder that no program sees, and
        # each program finds its own at `seen`
        self._stagings, self._seen = place / "all", place / "here"
        for folder in (self._stagings, self._seen):
            folder.mkdir()
        self._sources: dict[str, Path] = {}
        self.inputs: dict[str, Path] = {}
        """Recorded path of each input -> the auditor's file with the same SHA-256."""
        self.missing = self._match(data, code)
        """Why nothing can be replayed; None where everything that the program needs is there."""

    def initial(self, start: CheckpointEvent | None = None) -> Replay:
        """Run the program up to its first step; `Replay.initial` holds the state that it starts from.

        `start`: the committed initial state; a program that does not seed Python's generators takes them from there.
        """
        return self._run(0, 0, start, None)

    def segment(self, segment: Segment) -> Replay:
        """Repeat the steps of a segment and compare every event and component with the committed ones."""
        start = segment.start_state
        try:
            if int(start.step):
                check_files(self.run_dir, start.files)
        except PotError as error:
            return Replay("REFUSED", str(error))
        return self._run(segment.first - 1, segment.last, start, segment)

    def _match(self, data: Sequence[Path], code: Path) -> str | None:
        program = self.precommit.program
        if not program.command:
            return "the run was recorded without a program that could be started again"
        held = {file_sha256(file): file for path in data for file in _files(path)}
        for item in program.files:
            path = code / item.path
            if not path.is_file():
                return f"the program's file {item.path} is not in {code}"
            if file_sha256(path) != item.sha256:
                return f"the program's file {item.path} in {code} is not the committed one (SHA-256 {item.sha256})"
            self._sources[item.path] = path
        for entry in program.data_files:
            own = held.get(entry.sha256)
            if own is None:
                return f"no file with SHA-256 {entry.sha256} was given; the program reads it as {entry.path}"
            self._sources[entry.path] = own
            self.inputs[entry.path] = own
        return None

    def _run(self, first: int, last: int, start: CheckpointEvent | None, segment: Segment | None) -> Replay:
        if self.missing is not None:
            return Replay("REFUSED", self.missing)
        with tempfile.TemporaryDirectory(dir=self._stagings) as place:
            staging = Path(place)
            try:
                self._stage(staging, first, start)
            except PotError as error:  # a transcript whose files and digests contradict each other
                return Replay("MISMATCH", f"the committed start state: {error}")
            command = [sys.executable, "-s", "-B", *self.precommit.program.command]
            seen = self._seen if isolation() == "full" else staging
            ended = run_limited(
                ["sh", "-c", 'cd work && exec "$@"', "sh", *command], staging, self._variables(seen, first, last),
                self.limits, [*self._hidden, self._stagings], staging / "stderr", self._seen,
            )  # fmt: skip
            return self._judge(ended, staging / "out", segment)

    def _stage(self, staging: Path, first: int, start: CheckpointEvent | None) -> None:
        for name in ("run", "out", "work", "home", "tmp"):
            (staging / name).mkdir()
        (staging / "run" / PRECOMMIT_FILE).write_bytes(self.precommit.to_bytes())
        nonce = {"version": "pot/seed-nonce/v1", "precommit_sha256": self.precommit.sha256(), "nonce": self._nonce}
        (staging / "run" / NONCE_FILE).write_bytes(SeedNonce.from_value(nonce, what="nonce").to_bytes())
        if start is not None:
            folder = staging / "run" / replaying.START_FOLDER
            folder.mkdir()
            # from step 0 the program regenerates its state; only its generators' state may be asked for
            copy_checkpoint(self.run_dir, start, folder, only_generators=first == 0)
            (staging / "run" / "start.json").write_bytes(start.to_bytes())
        for place, source in self._sources.items():
            target = staging / "work" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def _variables(self, staging: Path, first: int, last: int) -> dict[str, str]:
        import pot

        bits = self.precommit.environment.get("bits")
        recorded = bits.get("variables") if isinstance(bits, dict) else None
        texts = recorded if isinstance(recorded, dict) else {}
        return {
            **variables(
                {key: value for key, value in texts.items() if isinstance(value, str)}
            ),  # no others: LD_PRELOAD would run the prover's code before the walls stand
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(staging / "home"),
            "TMPDIR": str(staging / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(pot.__file__).resolve().parent.parent),
            replaying.STEPS_VARIABLE: f"{first}:{last}",
            replaying.RUN_VARIABLE: str(staging / "run"),
            replaying.OUT_VARIABLE: str(staging / "out"),
        }

    def _judge(self, ended: Ended, out: Path, segment: Segment | None) -> Replay:
        if ended.code is None:
            return Replay("TIMEOUT", f"not finished after {self.limits.seconds:.0f} s", isolation=ended.isolation)
        disagreement = _read(out / replaying.DISAGREEMENT_FILE)
        if isinstance(disagreement, dict):
            return Replay("MISMATCH", str(disagreement.get("detail"))[:500], isolation=ended.isolation)
        initial, environment = _read(out / replaying.INITIAL_FILE), _read(out / replaying.ENVIRONMENT_FILE)
        result = _read(out / replaying.RESULT_FILE, _SLACK + _STEP_BYTES * len(segment.steps if segment else ()))
        if not (_digests(initial) and isinstance(environment, dict) and isinstance(result, dict)):
            return Replay(
                "REFUSED", f"the program ended with exit code {ended.code}: {ended.last_words or 'no message'}",
                isolation=ended.isolation,
            )  # fmt: skip
        common: dict[str, Any] = {"isolation": ended.isolation, "initial": initial, "environment": environment}
        if segment is None:
            return Replay("MATCH", **common)
        points = _compare_points(segment, result)
        found = _compare(segment, result)
        if found is None and points == "MISMATCH":
            found = "points", "the KZG points of the steps differ"
        if found is None:
            return Replay("MATCH", points=points, **common)
        where, sentence = found
        if where == "model" or where == "optimizer":
            sentence += self._first_tensor(segment.end_state, where, out)
        foreign = differences(self.precommit.environment, environment) if self.precommit.semantics == "float" else []
        if foreign and where not in _ORDER_FIELDS:
            detail = f"another environment, {len(foreign)} differences, first {foreign[0]}"
            return Replay("INCONCLUSIVE", detail, first_difference=sentence, points=points, **common)
        return Replay("MISMATCH", sentence, first_difference=sentence, points=points, **common)

    def _first_tensor(self, end: CheckpointEvent, component: str, out: Path) -> str:
        """Name the first tensor that differs, where the committed end state still lies in the run directory."""
        name = f"{component}.safetensors"
        file = next((item for item in end.files if Path(item.path).name == name), None)
        try:
            if file is None:
                return ""
            check_files(self.run_dir, [file])
            ours = entries_from_safetensors(read_state_file(self.run_dir / file.path))
            written = out / replaying.END_FOLDER / name
            if not written.is_file() or written.is_symlink() or written.stat().st_size > 2 * int(file.bytes) + _SLACK:
                return ""
            theirs = entries_from_safetensors(read_state_file(written))
        except PotError:  # without the files the component is named, the tensor is not
            return ""
        replayed = {entry.name: entry for entry in theirs}
        for entry in ours:
            other = replayed.get(entry.name)
            if other is None or other.shape != entry.shape or bytes(other.data) != bytes(entry.data):
                return f", first differing tensor {entry.name}"
        return ""


def replay_segment(
    run_dir: Path, segment: Segment, data: Sequence[Path], code: Path, *, precommit: Precommit, nonce: str,
    limits: Limits | None = None,
) -> Replay:  # fmt: skip
    """Replay one segment of a checked chain; see `Replayer`. Raises `EnvironmentFailure`, `UsageError`."""
    return Replayer(run_dir, precommit, nonce, data, code, limits=limits).segment(segment)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file() and not file.is_symlink()]
    raise UsageError(f"{path}: no such file or folder; it was given as data")


def _read(path: Path, limit: int = _SLACK) -> Any:
    """What the program wrote, strictly read; None where it is absent, too large, or no document of ours."""
    if not path.is_file() or path.is_symlink():
        return None
    try:
        return parse_canonical(read_file(path, limit=limit), what=path.name, limit=limit)
    except (Malformed, Refused, UsageError):
        return None


def _digests(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _compare(segment: Segment, result: dict[str, Any]) -> tuple[str, str] | None:
    """The first difference: the field or component, and a sentence."""
    steps, components = result.get("steps"), result.get("components")
    if not isinstance(steps, list) or len(steps) != len(segment.steps) or not isinstance(components, dict):
        return "steps", "the replay gave another number of steps"
    for event, replayed in zip(segment.steps, steps, strict=True):
        if not isinstance(replayed, dict):
            return "steps", f"step {event.step}: the replay gave no event"
        for name in _STEP_FIELDS:
            committed, found = getattr(event, name), replayed.get(name)
            if committed != found:
                return name, f"step {event.step}: {name} committed {committed}, replayed {str(found)[:80]}"
    committed_end = segment.end_state.components
    for name in sorted(committed_end.keys() | components.keys()):
        if committed_end.get(name) != components.get(name):
            return name, f"after step {segment.last}: component {str(name)[:32]} differs"
    return None


def _compare_points(segment: Segment, result: dict[str, Any]) -> PointsOutcome:
    steps = result.get("steps")
    if not isinstance(steps, list) or len(steps) != len(segment.steps):
        return "NOT_CHECKED"
    pairs = [(_points(event), item.get("points")) for event, item in zip(segment.steps, steps, strict=True)
             if isinstance(item, dict)]  # fmt: skip
    if len(pairs) != len(segment.steps) or any(committed is None or found is None for committed, found in pairs):
        return "NOT_CHECKED"
    return "MATCH" if all(committed == found for committed, found in pairs) else "MISMATCH"


def _points(event: StepEvent) -> dict[str, Any] | None:
    return event.points.model_dump(mode="json") if event.points is not None else None
