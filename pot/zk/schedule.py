"""Proving many steps: the parts of all of them as jobs, side by side on this machine or spread over a Ray cluster.

Implements `specs/step-proof.md`, section "Integer training". Before anything long begins, every step is executed and
its points are compared with the transcript's. Then each part is a job of its own; a worker makes its step's vectors
again from the integers, which is cheap, and proves. Finished parts are files, written atomically, and are verified
before they are used again; a step's file replaces those of its parts. So whatever ends the work, what was finished
stays.

A prover that hangs or dies costs its own step: the others go on, and the failures are told at the end. On Ray the kit's
folder must have the same path on all nodes, and the run's secret travels to them: it must be the prover's own cluster.

Shows: nothing to others. Does not show: that a cluster's nodes keep what they are given to themselves.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pot.canonical import read_file, write_file
from pot.distribute import mapped
from pot.errors import EnvironmentFailure, Refused
from pot.zk.engine import EngineFailure
from pot.zk.kit import commit_points, open_kit
from pot.zk.proof import MAX_PROOF_BYTES
from pot.zk.prover import Prepared, assemble, check_part, prepare_step, prove_part
from pot.zk.workers import in_processes

if TYPE_CHECKING:
    from pot.recording.transcript import Points
    from pot.zk.engine import Engine
    from pot.zk.kit import ProvingKit
    from pot.zk.runs.segment import Numbered, StepInputs

__all__ = ["Job", "Outcome", "Statement", "check_points", "prove_job", "prove_steps", "step_path"]

BLOCK: Final = 32  # steps whose states are held at once while their points are compared
MAX_FAILURES: Final = 3  # steps; more have a common cause

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Statement:
    """What all steps have in common: the run and its secret, and the kit's folder and circuit."""

    precommit_sha256: str
    secret: bytes = field(repr=False)
    kit: Path
    circuit_sha256: str


@dataclass(frozen=True)
class Job:
    """One part of one step to prove, or to verify if its proof was `kept`."""

    statement: Statement
    inputs: StepInputs
    points: Points
    part: int
    kept: bytes | None
    engine: Engine


@dataclass(frozen=True)
class Outcome:
    """The proof of a part with the points of the step's witness; `problem` says why there is none."""

    number: int
    part: int
    proof: bytes
    witness: list[str]
    problem: str = ""


def step_path(folder: Path, number: int) -> Path:
    """The file of a step's proof."""
    return folder / f"step-{number:06d}.json"


def check_points(
    kit: ProvingKit, secret: bytes, steps: Iterable[StepInputs], points_of: Callable[[int], Points], engine: Engine
) -> None:
    """Execute steps and compare their points with the transcript's, before anything is proven.

    Raises `Refused` for other data or another secret, and for a value outside its range, naming the step.
    """
    ahead = iter(steps)
    while block := list(islice(ahead, BLOCK)):
        states: dict[int, Numbered] = {}
        for item in block:
            if item.number > kit.circuit.max_steps:
                raise Refused(f"step {item.number}: the circuit proves steps up to {kit.circuit.max_steps} only")
            with _named(item.number):
                after = kit.verifying.family.next_state(item.before, item.batch, item.after)
            states.setdefault(item.number - 1, (item.number - 1, item.before))
            states.setdefault(item.number, (item.number, after))
        batches = [(item.number, item.batch) for item in block]
        found = commit_points(kit.verifying, secret, list(states.values()), batches, engine)
        state_points = dict(zip(states, found[: len(states)], strict=True))
        for item, batch in zip(block, found[len(states) :], strict=True):
            wanted = points_of(item.number)
            made = {"before": state_points[item.number - 1], "batch": batch, "after": state_points[item.number]}
            _compare(item.number, made, wanted)


def prove_steps(
    kit: ProvingKit, steps: Iterable[StepInputs], count: int, *, secret: bytes, precommit_sha256: str,
    points_of: Callable[[int], Points], folder: Path, engine: Engine, workers: int = 1, ray: str | None = None,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Prove `count` steps into `folder`, parts in up to `workers` processes at a time or on the cluster `ray`.

    `progress(done, all)` counts parts. Raises what proving raises of `pot.errors`; `EnvironmentFailure` names the
    steps whose prover failed, after the others were proven.
    """
    parts = len(kit.circuit.parts)
    statement = Statement(precommit_sha256, secret, kit.folder.absolute(), kit.circuit.sha256())
    jobs = (
        Job(statement, item, points_of(item.number), part, _kept(folder, item.number, part), engine)
        for item in steps
        for part in range(parts)
    )
    proven: dict[int, dict[int, Outcome]] = defaultdict(dict)
    failed: dict[int, str] = {}
    done = 0
    with contextlib.closing(_outcomes(jobs, workers, ray)) as outcomes:
        for outcome in outcomes:
            number = outcome.number
            done += 1
            if outcome.problem:
                failed.setdefault(number, outcome.problem)
                if len(failed) >= MAX_FAILURES:
                    break
                continue
            proven[number][outcome.part] = outcome
            if parts > 1:
                write_file(_part_path(folder, number, outcome.part), outcome.proof)
            if len(proven[number]) == parts:
                _finish(kit, statement, points_of(number), folder, proven.pop(number))
            if progress is not None:
                progress(done, count * parts)
    if failed:
        told = "; ".join(f"step {number}: {problem}" for number, problem in sorted(failed.items()))
        raise EnvironmentFailure(f"{told}; what is proven is kept, the same command goes on from there")


def prove_job(job: Job) -> Outcome:
    """Prove one part, here. Raises `Refused` for other points than the transcript's, `EnvironmentFailure`.

    What the prover itself could not do is an outcome, not an exception: it need not end the others' work.
    """
    kit = _opened(job.statement.kit, job.statement.circuit_sha256)
    try:
        prepared = _prepared(job, kit)
        proof = job.kept
        if proof is None or not _holds(kit, prepared, job.part, proof, job.engine):
            proof = prove_part(kit, prepared, job.part, job.engine)
    except EngineFailure as error:
        return Outcome(job.inputs.number, job.part, b"", [], str(error))
    return Outcome(job.inputs.number, job.part, proof, prepared.witness)


def _finish(kit: ProvingKit, statement: Statement, points: Points, folder: Path, outcomes: dict[int, Outcome]) -> None:
    first = outcomes[0]
    prepared = Prepared(first.number, statement.precommit_sha256, points, first.witness, [], [])
    proofs = [outcomes[part].proof for part in sorted(outcomes)]
    write_file(step_path(folder, first.number), assemble(kit.verifying, prepared, proofs).to_bytes())
    for part in outcomes:
        _part_path(folder, first.number, part).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or not there
        (folder / "parts").rmdir()


def _part_path(folder: Path, number: int, part: int) -> Path:
    return folder / "parts" / f"step-{number:06d}-{part:02d}.proof"


def _kept(folder: Path, number: int, part: int) -> bytes | None:
    path = _part_path(folder, number, part)
    return read_file(path, limit=MAX_PROOF_BYTES) if path.exists() else None


@lru_cache(maxsize=1)
def _opened(folder: Path, circuit_sha256: str) -> ProvingKit:
    kit = open_kit(folder)
    if kit.circuit.sha256() != circuit_sha256:
        raise Refused(f"{folder}: holds another circuit here than {circuit_sha256}; give all machines the same kit")
    return kit


_last: dict[tuple[Statement, int, str], Prepared] = {}
"""The step that this process prepared last: its next part is likely to come here too."""


def _prepared(job: Job, kit: ProvingKit) -> Prepared:
    statement, inputs = job.statement, job.inputs
    key = (statement, inputs.number, job.points.model_dump_json())
    if key not in _last:
        with _named(inputs.number):
            made = prepare_step(
                kit.verifying, secret=statement.secret, precommit_sha256=statement.precommit_sha256,
                number=inputs.number, state=inputs.before, batch=inputs.batch, after=inputs.after, engine=job.engine,
            )  # fmt: skip
        _compare(inputs.number, made.points.model_dump(), job.points)
        _last.clear()
        _last[key] = made
    return _last[key]


def _holds(kit: ProvingKit, prepared: Prepared, part: int, proof: bytes, engine: Engine) -> bool:
    """Whether a proof that was kept is one of this part of this step."""
    try:
        check_part(kit, prepared, part, proof, engine)
    except Refused:
        return False
    return True


@contextlib.contextmanager
def _named(number: int) -> Iterator[None]:
    """Refusals of a value name the step that it belongs to."""
    try:
        yield
    except Refused as error:
        raise Refused(f"step {number}: {error}") from None


def _compare(number: int, found: dict[str, str], wanted: Points) -> None:
    differing = [name for name, point in wanted.model_dump().items() if found[name] != point]
    if differing:
        raise Refused(
            f"step {number}: the points {', '.join(differing)} are not those in the transcript; give the run's own data"
            " and secret"
        )


def _outcomes(jobs: Iterator[Job], workers: int, ray: str | None) -> Generator[Outcome]:
    if ray is not None:
        with mapped(prove_job, list(jobs), ray=ray) as outcomes:
            yield from outcomes
    elif workers == 1:
        yield from map(prove_job, jobs)
    else:
        with contextlib.closing(in_processes(prove_job, jobs, workers)) as outcomes:
            yield from outcomes
