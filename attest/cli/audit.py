"""`pot audit`: re-execute what a challenge chose, or make a commitment to data again, and sign what came out.

`pot audit RUN` audits a run; `pot audit data C.json` audits a commitment (a run directory called data is `./data`).
Exit code: 0 when everything matched, 1 when something did not, 3 when a replay could not be decided here.

Shows / does not show: see `pot.audit.audit` and `pot.audit.data_audit`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from attest.cli.outputs import check_outputs, commitment_files, run_files
from attest.cli.terminal import clean, say, show

if TYPE_CHECKING:
    from pot.audit.audit import AuditResult
    from pot.audit.data_audit import DataAudit

__all__ = ["register"]


def register(main: typer.Typer) -> None:
    """Add `pot audit`, and below it `pot audit data`."""
    main.add_typer(app, name="audit")


class _RunOrData(TyperGroup):
    """A group whose words are those of the run's audit, unless the first of them names a command."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if args[:1] == ["data"]:
            return super().make_context(info_name, args, parent, **extra)
        alone = typer.Typer(rich_markup_mode=None, add_completion=False)
        alone.command(name="audit")(audit)
        return typer.main.get_command(alone).make_context(info_name, args, parent, **extra)


app = typer.Typer(
    name="audit",
    cls=_RunOrData,
    rich_markup_mode=None,
    help="Replay what a challenge chose of a run, or make a commitment to data again, and sign the result.",
)


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

    A commitment to data, without any run, is audited by pot audit data; see its own help.

    Examples:

    pot audit run --challenge challenge.json --data train.jsonl --code . --key auditor.pem --out audit.jsonl

    pot audit data train.json --digests train.digests --key auditor.pem --out data-audit.jsonl
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


@app.command()
def data(
    commitment: Path = typer.Argument(..., metavar="C.json", help="The dataset commitment to make again."),
    digests: Path | None = typer.Option(None, "--digests", help="Its listing: rebuild both roots, see no data."),
    paths: list[Path] = typer.Option([], "--data", help="File or folder of the data, in its order; repeatable."),
    key_file: Path | None = typer.Option(None, "--key-file", help="The hiding key of a hidden commitment."),
    compositions: list[Path] = typer.Option([], "--composition", help="Composition to sum up again; repeatable."),
    workers: int = typer.Option(1, "--workers", min=1, max=64, help="Processes, one file each at a time."),
    key: Path = typer.Option(..., "--key", help="The auditor's private key."),
    out: Path = typer.Option(..., "--out", help="Where to write the signed data audit (one line)."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Make a dataset commitment again and sign whether it is the same: exit 0 if it is, 1 if not.

    From the record digests alone (--digests), both roots are rebuilt, so that set and order hold the same records; no
    data is seen. From the files (--data), everything is made again, and compositions are summed up again.

    Examples:

    pot audit data train.json --digests train.digests --key auditor.pem --out data-audit.jsonl

    pot audit data winnow.json --data train.jsonl --key auditor.pem --out data-audit.jsonl
    """
    from attest.certify import sign_data_audit
    from attest.trust.keys import PrivateKey
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file, write_file
    from pot.commitments.dataset import DatasetCommitment
    from pot.errors import UsageError

    if (digests is None) == (not paths):
        raise UsageError("give either --digests, to rebuild both roots, or --data, to make everything again")
    if digests is not None and (key_file is not None or compositions):
        raise UsageError("--key-file and --composition need the data: give --data instead of --digests")
    signer = PrivateKey.load(key)  # a key that cannot sign is found out before the work, not after it
    optional = [path for path in (digests, key_file) if path is not None]
    check_outputs([out], reads=[*commitment_files(commitment), key, *optional, *paths, *compositions])
    document = DatasetCommitment.from_bytes(read_file(commitment, limit=MAX_DOCUMENT_BYTES), what=str(commitment))
    if digests is not None:
        result = _audit_digests(document, digests)
    else:
        result = _audit_data(document, paths, key_file, compositions, workers)
    write_file(out, sign_data_audit(result, signer))
    value = result.model_dump(mode="json", exclude_none=True)
    lines = [
        f"{result.outcome}  {commitment}",
        f"  from the {result.source}, {result.records} records" + (f": {result.detail}" if result.detail else ""),
        *(f"  composition {sha256} is the same" for sha256 in result.compositions or ()),
        *(f"  composition {sha256} is another" for sha256 in result.compositions_differ or ()),
    ]
    show(as_json, value, lines)
    if not result.agrees:
        raise typer.Exit(1)


def _audit_digests(document: Any, listing: Path) -> DataAudit:
    from pot.audit.data_audit import audit_digests, open_listing

    return audit_digests(document, open_listing(listing))


def _audit_data(
    document: Any,
    paths: list[Path],
    key_file: Path | None,
    compositions: list[Path],
    workers: int,
) -> DataAudit:
    from pot.audit.data_audit import audit_data
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file

    key = None
    if key_file is not None:
        from pot.commitments.hiding import load_key

        key = load_key(key_file)
    given = []
    for path in compositions:
        from pot.data.composition_verify import Composition

        given.append(Composition.from_bytes(read_file(path, limit=MAX_DOCUMENT_BYTES), what=str(path)))
    return audit_data(document, paths, key, given, workers=workers)
