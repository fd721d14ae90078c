"""`pot audit`: re-execute what a challenge chose, recompute the data's roots, and sign what came out.

Exit code: 0 when everything challenged matched, 1 when something did not, 3 when it could not be decided here.

Shows / does not show: see `pot.audit.audit`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from attest.cli.outputs import check_outputs, run_files
from attest.cli.terminal import clean, say

if TYPE_CHECKING:
    from pot.audit.audit import AuditResult

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `pot audit`."""
    app.command()(audit)


def audit(
    run: Path = typer.Argument(..., metavar="RUN", help="The run directory."),
    challenge: Path = typer.Option(..., "--challenge", help="The challenge to answer."),
    data: list[Path] = typer.Option(..., "--data", help="File or folder that the program reads; repeatable."),
    code: Path = typer.Option(Path(), "--code", help="Folder of the program's code, paths as recorded."),
    key: Path = typer.Option(..., "--key", help="The auditor's private key."),
    out: Path = typer.Option(..., "--out", help="Where to write the signed audit statement (one line)."),
    seed_nonce: Path | None = typer.Option(None, "--seed-nonce", help="The nonce document, if you issued it."),
    hide: list[Path] = typer.Option([], "--hide", help="Folder that the replayed program must not see; repeatable."),
    timeout: float = typer.Option(3600.0, "--timeout", min=1.0, help="Seconds for each segment."),
    workers: int = typer.Option(1, "--workers", min=1, max=64, help="Segments to replay at the same time."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Replay the challenged segments bit by bit and sign the result.

    Example: pot audit run --challenge challenge.json --data train.jsonl --code . --key auditor.pem --out audit.jsonl
    """
    from attest.certify import sign_audit
    from attest.trust.keys import PrivateKey
    from pot.audit.audit import audit as run_audit
    from pot.audit.challenge import Challenge
    from pot.audit.sandbox import Limits, isolation
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file, write_file
    from pot.errors import UsageError
    from pot.recording.begin import PRECOMMIT_FILE
    from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Precommit, SeedNonce, other_inputs

    question = Challenge.from_bytes(read_file(challenge, limit=MAX_DOCUMENT_BYTES), what=str(challenge))
    issued = None
    if seed_nonce is not None:
        issued = SeedNonce.from_bytes(read_file(seed_nonce, limit=4096), what=str(seed_nonce))
    signer = PrivateKey.load(key)  # a key that cannot sign is found out before the replay, not after it
    for folder in hide:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; it was given to be hidden from the program")
    given = [path for path in (challenge, key, seed_nonce, *data) if path is not None and path.is_file()]
    check_outputs([out], reads=[*given, *run_files(run)])
    if isolation() != "full":
        say(
            f"isolation {isolation()}: this machine cannot hide the run directory and your key from the program;"
            " stop now unless you trust the trainer"
        )
    path = run / PRECOMMIT_FILE
    inputs = other_inputs(Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path)))
    result = run_audit(
        run,
        question,
        data,
        code,
        seed_nonce=issued,
        limits=Limits(seconds=timeout),
        progress=lambda what, done, total: say(f"{what}: {done} of {total}"),
        hidden=[*hide, key],  # the program is the prover's: it must not read the auditor's key
        workers=workers,
    )
    write_file(out, sign_audit(result, signer))
    typer.echo(result.to_bytes().decode() if as_json else "\n".join(map(clean, _lines(result, inputs))))
    outcomes = {unit.outcome for unit in result.replays}
    if (
        outcomes & {"MISMATCH", "REFUSED"}
        or result.init == "MISMATCH"
        or result.points == "MISMATCH"
        or result.datasets_differ
    ):
        raise typer.Exit(1)
    if outcomes != {"MATCH"} or result.init != "MATCH":
        raise typer.Exit(3)


def _lines(result: AuditResult, inputs: list[str]) -> list[str]:
    counted = [unit.outcome for unit in result.replays]
    lines = [
        f"{len(counted)} of {result.challenge.population} {result.challenge.unit}s replayed: "
        + ", ".join(f"{counted.count(name)} {name}" for name in dict.fromkeys(counted)),
        f"initial state  {result.init}" + (f" ({result.init_detail})" if result.init_detail else ""),
        f"dataset roots  {len(result.datasets)} recomputed, {len(result.datasets_differ or ())} differ",
        f"points         {result.points}",
        f"isolation      {result.isolation}",
    ]
    if inputs:
        lines.append(f"inputs         that hold no committed records, and might hold the answer: {', '.join(inputs)}")
    return lines + [
        f"{unit.outcome.lower()}: {unit.unit_number}: {unit.detail}" for unit in result.replays if unit.detail
    ]
