"""`pot prove`: zero-knowledge step proofs of the steps that a challenge chose.

Shows / does not show: see `pot.zk.verifier`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from attest.cli.outputs import check_outputs, check_run, for_this_run
from attest.cli.terminal import clean, say

if TYPE_CHECKING:
    from pot.recording.chain import ChainResult
    from pot.zk.kit import ProvingKit

__all__ = ["register"]

_CPU_SECONDS_PER_ASSIGNMENT: Final = 0.0003  # 64-32-10, batch 8: 32,512 assignments, about 10 s of CPU
_BYTES_PER_ASSIGNMENT: Final = 40_000  # the same circuit: 1.3 GB at its peak


def register(app: typer.Typer) -> None:
    """Add `pot prove`."""
    app.command()(prove)


def prove(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory of a finished exact run.")],
    kit: Annotated[Path, typer.Option("--kit", help="The circuit's folder, made by 'pot zk setup'.")],
    data: Annotated[Path, typer.Option("--data", help="The records that the run was trained on.")],
    secret: Annotated[Path, typer.Option("--secret", help="The run's 32 secret bytes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the step proofs, one file a step.")],
    challenge: Annotated[Path | None, typer.Option("--challenge", help="A challenge of unit step.")] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="Steps instead of a challenge: 3,7,10-12.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Prove steps of an exact run in zero knowledge, one proof a step; steps proven already are left alone.

    Examples:

    pot prove run --kit kit --data fine-tune.jsonl --secret secret.key --challenge steps.json --out proofs

    pot prove run --kit kit --data fine-tune.jsonl --secret secret.key --steps 1-4 --out proofs --dry-run
    """
    from pot.audit.audit import load_run
    from pot.zk.kit import open_kit

    check_run(run)
    if not dry_run:
        check_outputs([out], folder=True)
    precommit, transcript, chain = load_run(run)
    numbers = _numbers(challenge, steps, precommit.sha256(), transcript.sha256(), chain)
    opened = open_kit(kit)
    _check_circuit(precommit.config.get("circuit_sha256"), opened.circuit.sha256(), kit)
    if dry_run:
        _print_cost(opened, len(numbers), as_json)
        return
    from pot.canonical import read_file, write_file
    from pot.data.readers import RecordDataset
    from pot.zk.engine import EzklEngine
    from pot.zk.prover import prove_step
    from pot.zk.rewind import points_of, step_inputs
    from pot.zk.training import SECRET_BYTES

    key = read_file(secret, limit=SECRET_BYTES)
    _check_secret(precommit.secret_sha256, key, secret)
    engine = EzklEngine()
    missing = [number for number in numbers if not _is_proven(out, number, precommit.sha256(), opened.circuit.sha256())]
    if len(missing) < len(numbers):
        say(f"{len(numbers) - len(missing)} of {len(numbers)} steps are proven already in {out}")
    inputs = step_inputs(run, precommit, transcript, chain, opened.spec, missing, RecordDataset(data))
    for done, item in enumerate(inputs, 1):
        step_proof = prove_step(
            opened,
            secret=key,
            precommit_sha256=precommit.sha256(),
            number=item.number,
            weights=item.before,
            features=item.features,
            labels=item.labels,
            engine=engine,
        )
        _check_points(step_proof.points.model_dump(), points_of(chain, item.number).model_dump(), item.number)
        write_file(_path(out, item.number), step_proof.to_bytes())
        say(f"step {item.number} proven, {done} of {len(missing)}")
    result = {
        "circuit_sha256": opened.circuit.sha256(),
        "steps": numbers,
        "proofs": [str(_path(out, n)) for n in numbers],
    }
    typer.echo(
        json.dumps(result, sort_keys=True)
        if as_json
        else f"{clean(str(out))}: {len(numbers)} of {chain.segments[-1].last} steps proven: "
        + ", ".join(str(number) for number in numbers)
    )


def _path(out: Path, number: int) -> Path:
    return out / f"step-{number:06d}.json"


def _is_proven(out: Path, number: int, precommit_sha256: str, circuit_sha256: str) -> bool:
    """Whether a step proof of this very run, step and circuit lies there; anything else is proven anew."""
    from pot.errors import Refused
    from pot.zk.verifier import read_step_proof

    path = _path(out, number)
    if not path.exists():
        return False
    from pot.canonical import read_file
    from pot.zk.proof import MAX_PROOF_BYTES

    found = read_step_proof(read_file(path, limit=3 * MAX_PROOF_BYTES), what=str(path))
    if (found.precommit_sha256, found.circuit_sha256, found.step) != (precommit_sha256, circuit_sha256, str(number)):
        raise Refused(f"{path}: is a step proof of another run, step or circuit; choose another --out")
    return True


def _numbers(
    challenge: Path | None, steps: str | None, precommit_sha256: str, transcript_sha256: str, chain: ChainResult
) -> list[int]:
    from pot.audit.challenge import Challenge, check_draw
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


def _check_circuit(committed: object, found: str, kit: Path) -> None:
    from pot.errors import Refused

    if committed != found:
        raise Refused(f"{kit}: holds circuit {found}, the run pre-committed to {str(committed)[:64]}; use that kit")


def _check_secret(committed: str | None, secret: bytes, path: Path) -> None:
    """A wrong secret gives wrong points, found out only after a whole proof; the pre-commitment tells at once."""
    from pot.canonical import sha256_hex
    from pot.errors import Refused

    if committed is not None and sha256_hex(secret) != committed:
        raise Refused(
            f"{path}: is not the secret that the run pre-committed to (SHA-256 {committed}); give the run's own"
        )


def _check_points(found: dict[str, str], committed: dict[str, str], number: int) -> None:
    from pot.errors import Refused

    if found != committed:
        raise Refused(
            f"step {number}: the points of its step proof are not those in the transcript; give the run's own data and"
            " secret"
        )


def _print_cost(kit: ProvingKit, count: int, as_json: bool) -> None:
    """Rows and assignments are the circuit's own; time and memory scale with them as measured for 64-32-10."""
    import os

    from pot.canonical import parse

    settings = parse(kit.verifying.settings, what="settings")
    assignments = int(settings["total_assignments"])
    cores = os.cpu_count() or 1
    value = {
        "steps": count,
        "parameters": kit.spec.parameters,
        "logrows": kit.spec.logrows,
        "rows": int(settings["num_rows"]),
        "minutes": round(_CPU_SECONDS_PER_ASSIGNMENT * assignments * count / cores / 60, 2),
        "gigabytes": round(_BYTES_PER_ASSIGNMENT * assignments / 1e9, 2),
    }
    typer.echo(
        json.dumps(value, sort_keys=True)
        if as_json
        else f"{count} steps of {value['parameters']} parameters: {value['rows']} rows of 2^{value['logrows']}, about"
        f" {value['minutes']} minutes on {cores} cores, {value['gigabytes']} GB of memory"
    )
