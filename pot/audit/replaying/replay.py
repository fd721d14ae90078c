"""Replay: the committed program repeats one segment from its committed start state, and the events are compared.

The staging folder holds only the pre-commitment, the nonce, code and data checked by SHA-256, and the start state,
written anew from what its digests cover, so that no byte beside them reaches the program. The program
(`pot.recording.replaying`) writes what came out, and every bit of it must equal the committed events.

Shows: from the committed start state, code, data and environment, the committed steps give the committed end state.
Does not show: that training happened this way historically, nor that the code is benign.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from pot.audit.replaying.committed import committed_tensors, distance_or_none
from pot.audit.replaying.comparison import (
    Difference,
    PointsOutcome,
    compare,
    compare_points,
    cut,
    end_difference,
    first_tensor,
    result_roots,
)
from pot.audit.replaying.covers import around, running_folders, say_uncovered, stagings_folder, temporary_folders
from pot.audit.replaying.leases import leased_folder, remove_abandoned
from pot.audit.replaying.own_environment import OwnEnvironment
from pot.audit.replaying.produced import SLACK, Produced, Request, asked, lost_input, read_out
from pot.audit.replaying.sandbox import Isolation, Limits, run_limited
from pot.audit.replaying.staging import Staging, program_inputs
from pot.audit.replaying.tolerance import decimal_text
from pot.commitments.state import TensorEntry
from pot.errors import Malformed, PotError, Refused, UsageError
from pot.recording.checking.chain import Segment
from pot.recording.launch import most_processes
from pot.recording.precommit import Precommit, row_processes
from pot.recording.state import check_files
from pot.recording.transcript import CheckpointEvent

__all__ = ["Outcome", "PointsOutcome", "Produced", "Replay", "Replayer", "Request", "committed_tensors"]

Outcome = Literal["MATCH", "MISMATCH", "INCONCLUSIVE", "TIMEOUT", "REFUSED"]

_MEASURED: Final = ("model", "optimizer")
_NAME_BYTES: Final = 120


@dataclass(frozen=True)
class Replay:
    """What a replay gave. `initial` and `environment` are what the program reported, where it came that far.

    `roots`: the digests of inner states that were asked for, by step. `difference`: where the two part. `distances`:
    by component, how far the replayed end state is from the committed one, over the segment's update. `tensor`: the
    first of the end state that differs.
    """

    outcome: Outcome
    detail: str = ""
    first_difference: str | None = None
    points: PointsOutcome = "NOT_CHECKED"
    isolation: Isolation = "none"
    initial: dict[str, str] | None = field(default=None, repr=False)
    environment: dict[str, Any] | None = field(default=None, repr=False)
    roots: dict[int, dict[str, str]] = field(default_factory=dict, repr=False)
    difference: Difference | None = field(default=None, repr=False)
    distances: dict[str, str] = field(default_factory=dict)
    tensor: str | None = None


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
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`data`: files or folders that hold the program's inputs; `code`: the folder of its code.

        `variables`: the auditor's own, set for every replay besides the recorded ones.
        """
        self.run_dir = run_dir
        self.precommit = precommit
        self.nonce = nonce
        self.limits = limits if limits is not None else Limits()
        self._sources, missing = program_inputs(precommit.program, data, code)
        self.undelivered = missing if precommit.program.command else None
        self.missing = missing or self._too_many()
        # what was handed over with code and data is the prover's too, but for the files that are staged
        handed = [code, *(path for path in data if path.is_dir() or path not in self._sources.values())]
        covered, self.uncovered = around(handed)
        say_uncovered(self.uncovered)
        # the start of the next segment is the answer of this one: all stagings, of all audits, lie in one folder that
        # no program sees, and each program finds its own at `seen`
        places, _ = around([stagings_folder(), *temporary_folders(), *running_folders()])
        self._hidden = [run_dir, *hidden, *covered, *places]
        remove_abandoned(stagings_folder())
        self.stagings = leased_folder(stagings_folder(), self)
        self._seen = self.stagings / "seen"
        self._seen.mkdir()
        if any(self._seen.is_relative_to(path.resolve()) for path in (run_dir, *hidden)):
            raise UsageError("replay: the temporary folder lies inside the run directory; set TMPDIR elsewhere")
        self.own = OwnEnvironment(
            precommit.environment, self.limits, self._hidden, self.stagings, self._seen, variables or {}
        )

    undelivered: str | None
    """Which committed file of code or data is not among what was given; None where all are."""

    missing: str | None
    """Why nothing can be replayed; None where everything that the program needs is there."""

    uncovered: list[Path]
    """Folders of code or data of which the program sees more than the committed files: they hold what it runs on."""

    @property
    def inputs(self) -> dict[str, Path]:
        """Recorded path of each input -> the auditor's file with the same SHA-256."""
        paths = {file.path for file in self.precommit.program.data_files}
        return {path: file for path, file in self._sources.items() if path in paths}

    def initial(self, start: CheckpointEvent | None = None) -> Replay:
        """Run the program up to its first step; `Replay.initial` holds the state that it starts from.

        `start`: the committed initial state; a program that does not seed Python's generators takes them from there.
        """
        return self._replay(Request(0, 0, start), None)

    def segment(self, segment: Segment, *, roots: Collection[int] = ()) -> Replay:
        """Repeat the steps of a segment and compare every event and component with the committed ones.

        `roots`: steps inside the segment whose digests are wanted besides those that the transcript has. Where only
        threads or the processor's instruction set differ from the record, the segment is repeated with the recorded
        ones, so that a record that differs from the truth does not turn MISMATCH into INCONCLUSIVE.
        """
        wanted = {int(root.step) for root in segment.roots} | set(roots)
        request = Request(segment.first - 1, segment.last, segment.start_state, sorted(wanted))
        settings = self.own.settings()
        replay = self._replay(request, segment)
        if replay.outcome == "INCONCLUSIVE":
            self.own.adopt(replay.environment)
            if self.own.settings() != settings:
                replay = self._replay(request, segment)
        return replay

    @contextmanager
    def produced(self, request: Request) -> Iterator[Produced]:
        """Run the program and hold what it wrote, uncompared. Raises `Refused` (nothing to run, start state wrong)."""
        if self.missing is not None:
            raise Refused(self.missing)
        with tempfile.TemporaryDirectory(dir=self.stagings, ignore_cleanup_errors=True) as place:
            staging = Staging(Path(place))
            try:
                staging.fill(
                    self.run_dir, self.precommit, self.nonce, request.first, request.start, self._sources,
                    request.roots,
                )  # fmt: skip
            except (Malformed, UsageError) as error:
                raise Refused(str(error)) from None
            variables = {
                **self.own.variables(),
                **request.variables,
                **staging.variables(self._seen),
                **asked(request),
            }
            ended = run_limited(
                ["sh", "-c", 'cd work && exec "$@"', "sh", *self._command()], staging.folder, variables, self._shared(),
                self._hidden, staging.folder / "stderr", self._seen, staging.shown,
                loopback=self.precommit.layout is not None,
            )  # fmt: skip
            steps = request.last - request.first
            yield read_out(ended, staging.out(), steps, row_processes(self.precommit))

    def tensors(self, event: CheckpointEvent, component: str) -> list[TensorEntry] | None:
        """`committed_tensors` of this run."""
        return committed_tensors(self.run_dir, event, component)

    def foreign(self, environment: Mapping[str, Any] | None) -> list[str]:
        """What in the environment can excuse another result; nothing under exact semantics."""
        return self.own.foreign(environment) if self.precommit.semantics == "float" else []

    def _too_many(self) -> str | None:
        layout = self.precommit.layout
        if layout is None or int(layout.processes) <= most_processes():
            return None
        return f"the run has {layout.processes} processes; this machine starts at most {most_processes()} side by side"

    def _shared(self) -> Limits:
        """The limits of each of the run's processes."""
        processes = int(self.precommit.layout.processes) if self.precommit.layout is not None else 1
        return replace(self.limits, memory_bytes=self.limits.memory_bytes // processes)

    def _command(self) -> list[str]:
        """What is started in the folder of the program's files."""
        program = self.precommit.program
        launcher = ["-P", "-m", "pot.recording.scripts.attach"] if program.launcher == "attach" else []
        if self.precommit.layout is not None:
            launcher = ["-P", "-m", "pot.recording.launch", self.precommit.layout.processes, *launcher]
        return [self.own.python, "-s", "-B", *launcher, *program.command]

    def _replay(self, request: Request, segment: Segment | None) -> Replay:
        if self.missing is not None:
            return Replay("REFUSED", self.missing)
        with ExitStack() as stack:
            try:
                produced = stack.enter_context(self.produced(request))
            except Refused as error:
                return self._start_refused(request.start, str(error))
            return self._judge(produced, segment)

    def _start_refused(self, start: CheckpointEvent | None, reason: str) -> Replay:
        """Lost or exchanged files are no state at all; committed files that contradict their digests are a lie."""
        try:
            if start is not None:
                check_files(self.run_dir, start.files)
        except PotError as error:
            return Replay("REFUSED", str(error))
        return Replay("MISMATCH", f"the committed start state: {reason}")

    def _judge(self, produced: Produced, segment: Segment | None) -> Replay:
        ended = produced.ended
        if ended.code is None:
            return Replay("TIMEOUT", f"not finished after {self.limits.seconds:.0f} s", isolation=ended.isolation)
        if produced.disagreement is not None:
            return Replay("MISMATCH", produced.disagreement, isolation=ended.isolation)
        if produced.result is None or not produced.complete():
            reason = f"the program ended with exit code {ended.code}: {ended.last_words or 'no message'}"
            reason += lost_input(ended.last_words, self.precommit.program)
            return Replay("REFUSED", reason, isolation=ended.isolation)
        found = Replay(
            "MATCH", isolation=ended.isolation, initial=produced.initial, environment=produced.environment,
            roots=result_roots(produced.result),
        )  # fmt: skip
        if segment is None:
            return found
        found = replace(found, points=compare_points(segment, produced.result))
        difference = compare(segment, produced.result)
        if difference is None and found.points == "MISMATCH":
            difference = Difference(
                "points", "the KZG points of the steps differ", segment.first - 1, segment.last, everywhere=True
            )
        return found if difference is None else self._differing(found, difference, segment, produced)

    def _differing(self, found: Replay, difference: Difference, segment: Segment, produced: Produced) -> Replay:
        sentence = end_difference(difference, segment)
        tensor, distances = self._end_state(segment, produced)
        if tensor is not None:
            sentence += f", first differing tensor {cut(tensor, _NAME_BYTES)}"
        found = replace(found, difference=difference, first_difference=sentence, distances=distances, tensor=tensor)
        measured = "".join(f"; {name} {value} of its update away" for name, value in distances.items())
        foreign = [] if difference.everywhere else self.foreign(found.environment)
        if not foreign:
            return replace(found, outcome="MISMATCH", detail=sentence + measured)
        detail = f"another environment, {len(foreign)} differences, first {foreign[0]}{measured}"
        points = "NOT_CHECKED" if found.points == "MISMATCH" else found.points  # they are of the states that differ
        return replace(found, outcome="INCONCLUSIVE", detail=detail, points=points)

    def _end_state(self, segment: Segment, produced: Produced) -> tuple[str | None, dict[str, str]]:
        """The first tensor that differs and the distances, where the committed states still lie in the run directory.

        The end is compared whatever differed first: a loss has no tensors, the state after it has.
        """
        tensor: str | None = None
        distances: dict[str, str] = {}
        for name in _MEASURED:
            claimed = self.tensors(segment.end_state, name)
            if claimed is None:
                continue
            size = sum(len(entry.data) for entry in claimed)
            replayed = produced.tensors(name, 2 * size + SLACK)
            if replayed is None:
                continue
            if tensor is None:
                tensor = first_tensor(claimed, replayed)
            start = self.tensors(segment.start_state, name)
            distance = distance_or_none(start, claimed, replayed) if start is not None else None
            if distance is not None and distance > 0.0:
                distances[name] = decimal_text(distance)
        return tensor, distances
