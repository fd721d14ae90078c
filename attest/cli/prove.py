"""`pot prove`: zero-knowledge step proofs of the steps that a challenge chose.

Shows / does not show: see `pot.zk.verifier`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attest.cli.outputs import check_outputs, check_run, for_this_run
from attest.cli.terminal import clean, counted, progress_lines, say, show

if TYPE_CHECKING:
    from pot.recording.checking.chain import ChainResult
    from pot.recording.precommit import Precommit
    from pot.recording.transcript import Points
    from pot.zk.circuits.proof_cost import Cost
    from pot.zk.engine import Engine
    from pot.zk.kit import ProvingKit

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `pot prove`."""
    app.command()(prove)


def prove(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory of a run with points.")],
    kit: Annotated[Path, typer.Option("--kit", help="The circuit's folder, made by 'pot zk setup'.")],
    data: Annotated[Path, typer.Option("--data", help="The records that the run was trained on.")],
    secret: Annotated[Path, typer.Option("--secret", help="The run's 32 secret bytes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the step proofs, one file a step.")],
    challenge: Annotated[Path | None, typer.Option("--challenge", help="A challenge of unit step.")] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="Steps instead of a challenge: 3,7,10-12.")] = None,
    kept: Annotated[
        Path | None, typer.Option("--kept", help="Folder of the states that a run in floats kept; family auto too.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=64, help="Proofs at a time; default: what cores and memory allow."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Spread proofs over your own Ray cluster; it gets the secret."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Prove steps of a run in zero knowledge; what is proven already is checked and left alone.

    Secret, data and every step's range are checked before the first proof. Interrupted work goes on from its last
    finished part with the same command.

    Examples:

    pot prove run --kit kit --data fine-tune.jsonl --secret secret.key --challenge steps.json --out proofs

    pot prove run --kit kit --data fine-tune.jsonl --secret secret.key --steps 1-4 --out proofs --dry-run
    """
    from pot.recording.checking.finished import load_run
    from pot.zk.kit import open_kit

    check_run(run)
    if not dry_run:
        check_outputs([out], folder=True)
    precommit, transcript, chain = load_run(run)
    numbers = _numbers(challenge, steps, precommit.sha256(), transcript.sha256(), chain)
    circuit = _circuit(run, precommit, chain)
    opened = open_kit(kit)
    _check_circuit(circuit, opened.circuit.sha256(), kit)
    if dry_run:
        _print_cost(opened, len(numbers), as_json)
        return
    from pot.canonical import read_file
    from pot.data.readers import RecordDataset
    from pot.errors import UsageError
    from pot.recording.precommit import total_records
    from pot.zk.cost import kit_cost, limits_of, proofs_at_once
    from pot.zk.engine import EzklEngine
    from pot.zk.runs.rewind import points_of, step_inputs
    from pot.zk.runs.segment import SECRET_BYTES, StepInputs
    from pot.zk.schedule import check_points, prove_steps, step_path

    if ray is not None and workers is not None:
        raise UsageError("give --workers or --ray, one of them")
    key = read_file(secret, limit=SECRET_BYTES)
    _check_secret(precommit.secret_sha256, key, secret)
    cost = kit_cost(opened.verifying)
    engine = EzklEngine(limits_of(cost))
    _check_version(engine, opened)
    missing = _unproven(out, numbers, precommit.sha256(), opened, chain, engine)
    records = RecordDataset(data)

    if len(records) != (count := total_records(precommit)):
        raise UsageError(f"{data}: holds {len(records)} records, the run committed to {count}; give the run's own data")

    def inputs() -> Iterator[StepInputs]:
        return step_inputs(run, precommit, transcript, chain, opened.verifying.step, missing, records, kept=kept)

    def points(number: int) -> Points:
        return points_of(chain, number)

    check_points(opened, key, inputs(), points, engine)
    jobs = len(missing) * len(opened.circuit.parts)
    at_once = workers or proofs_at_once(cost, jobs)
    if ray is None:
        _warn(cost, at_once)
    with _progress() as report:
        prove_steps(
            opened, inputs(), len(missing), secret=key, precommit_sha256=precommit.sha256(), points_of=points,
            folder=out, engine=engine, workers=at_once, ray=ray, progress=report,
        )  # fmt: skip
    result = {
        "circuit_sha256": opened.circuit.sha256(),
        "steps": numbers,
        "proofs": [str(step_path(out, number)) for number in numbers],
    }
    typer.echo(
        json.dumps(result, sort_keys=True)
        if as_json
        else f"{clean(str(out))}: {len(numbers)} of {chain.segments[-1].last} steps proven: "
        + ", ".join(str(number) for number in numbers)
    )


def _unproven(
    out: Path, numbers: Sequence[int], precommit_sha256: str, kit: ProvingKit, chain: ChainResult, engine: Engine
) -> list[int]:
    """The steps without a proof in the folder. Raises `Refused` where a file there proves another step, or nothing."""
    from pot.canonical import read_file
    from pot.errors import Malformed, Refused
    from pot.zk.proof import MAX_STEP_PROOF_BYTES
    from pot.zk.runs.rewind import points_of
    from pot.zk.schedule import step_path
    from pot.zk.verifier import Expected, StepProofRefused, read_step_proof, verify_steps

    circuit = kit.circuit.sha256()
    paths = {number: step_path(out, number) for number in numbers if step_path(out, number).exists()}
    try:
        found = [
            read_step_proof(read_file(path, limit=MAX_STEP_PROOF_BYTES), what=str(path)) for path in paths.values()
        ]
    except Malformed as error:
        raise Malformed(f"{error}; delete that file, and the same command proves its step again") from None
    for proof, (number, path) in zip(found, paths.items(), strict=True):
        if (proof.precommit_sha256, proof.circuit_sha256, proof.step) != (precommit_sha256, circuit, str(number)):
            raise Refused(f"{path}: is a step proof of another run, step or circuit; choose another --out")
    if found:
        expected = [Expected(precommit_sha256, number, points_of(chain, number)) for number in paths]
        try:
            verify_steps(found, kit=kit.verifying, circuit_sha256=circuit, expected=expected, engine=engine)
        except StepProofRefused as error:
            raise Refused(f"{out}: {error}; remove that step's file, or choose another --out") from None
        say(f"{len(found)} of {len(numbers)} steps are proven already in {out}")
    return [number for number in numbers if number not in paths]


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        lines = progress_lines(" proofs")
        yield lambda done, total: lines("proven", done, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("proofs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("proofs", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _warn(cost: Cost, at_once: int) -> None:
    from pot.zk.cost import available_bytes

    needed, free = at_once * cost.bytes, available_bytes()
    if needed > free:
        say(
            f"{counted(at_once, 'proof')} at a time may take {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free: the"
            " system may stop some; what is finished is kept"
        )


def _print_cost(kit: ProvingKit, count: int, as_json: bool) -> None:
    from pot.zk.cost import available_bytes, cores, kit_cost, kit_rows, proofs_at_once

    circuit = kit.circuit
    rows, cost = kit_rows(kit.verifying), kit_cost(kit.verifying)
    at_once = proofs_at_once(cost, count * len(rows))
    value: dict[str, Any] = {
        "steps": count,
        "parameters": circuit.parameters,
        "parts": len(rows),
        "logrows": circuit.logrows,
        "columns": circuit.columns,
        "rows": rows,
        "cpu_seconds": round(cost.seconds * count, 1),
        "minutes": round(cost.seconds * count / cores() / 60, 2),
        "at_once": at_once,
        "gigabytes": round(at_once * cost.bytes / 1e9, 2),
        "free_gigabytes": round(available_bytes() / 1e9, 2),
    }
    used = ", ".join(f"{number:,}" for number in rows)
    seconds, needed, free = (value[name] for name in ("cpu_seconds", "gigabytes", "free_gigabytes"))
    lines = [
        f"{counted(count, 'step')} of {circuit.parameters:,} parameters, {counted(len(rows), 'proof')} a step",
        f"  rows     {used} of 2^{circuit.logrows}, in {circuit.columns} columns",
        f"  time     about {value['minutes']} minutes on {counted(cores(), 'core')}: {seconds} CPU-seconds",
        f"  memory   about {needed} GB for {counted(at_once, 'proof')} at a time; {free} GB are free",
    ]
    show(as_json, value, lines)


def _numbers(
    challenge: Path | None, steps: str | None, precommit_sha256: str, transcript_sha256: str, chain: ChainResult
) -> list[int]:
    from pot.audit.challenges.challenge import Challenge, check_draw
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file
    from pot.errors import UsageError

    if (challenge is None) == (steps is None):
        raise UsageError("give --challenge or --steps, one of them")
    if not chain.segments:
        raise UsageError("the run has no steps that could be proven")
    last = chain.segments[-1].last
    if challenge is not None:
        document = Challenge.from_bytes(read_file(challenge, limit=MAX_DOCUMENT_BYTES), what=str(challenge))
        with for_this_run(challenge):
            check_draw(document, precommit_sha256, transcript_sha256, len(chain.segments), last)
        if document.unit != "step":
            raise UsageError(f"{challenge}: draws segments; draw steps with 'pot challenge new --unit step'")
        return [int(number) for number in document.chosen]
    return _listed(steps or "", last)


def _listed(text: str, last: int) -> list[int]:
    from pot.errors import UsageError

    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip(), re.ASCII)
        if match is None:
            raise UsageError(f"--steps {text[:80]}: write numbers and ranges, such as 3,7,10-12")
        first, end = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= end <= last:
            raise UsageError(f"--steps {part}: the run has the steps 1 to {last}")
        chosen.update(range(first, end + 1))
    return sorted(chosen)


def _circuit(run: Path, precommit: Precommit, chain: ChainResult) -> object:
    """The circuit that a run pre-committed to. Raises `UsageError` for a run of which no step can be proven."""
    from pot.errors import UsageError

    if not any(step.points for segment in chain.segments for step in segment.steps):
        raise UsageError(
            f"{run}: its transcript has no points, so none of its steps can be proven; record a run with ExactTrainer,"
            " or another trainer of pot.zk"
        )
    if "circuit_sha256" not in precommit.config:
        raise UsageError(f"{run}: pre-committed to no circuit; train with config={{'circuit_sha256': ...}} of the kit")
    return precommit.config["circuit_sha256"]


def _check_circuit(committed: object, found: str, kit: Path) -> None:
    from pot.errors import Refused

    if committed != found:
        raise Refused(f"{kit}: holds circuit {found}, the run pre-committed to {str(committed)[:64]}; use that kit")


def _check_version(engine: Engine, kit: ProvingKit) -> None:
    from pot.errors import EnvironmentFailure

    found, wanted = engine.version(), kit.circuit.ezkl_version
    if found != wanted:
        raise EnvironmentFailure(f"ezkl {found} is installed, the circuit was made with {wanted}; install that one")


def _check_secret(committed: str | None, secret: bytes, path: Path) -> None:
    """A wrong secret gives wrong points, found out only after a whole proof; the pre-commitment tells at once."""
    from pot.canonical import sha256_hex
    from pot.errors import Refused

    if committed is not None and sha256_hex(secret) != committed:
        raise Refused(
            f"{path}: is not the secret that the run pre-committed to (SHA-256 {committed}); give the run's own"
        )
