"""`pot audit data`: make a commitment to data again, from its listing or from the data, and sign what came out.

Exit code: 0 when everything is the same, 1 when something is not.

Shows / does not show: see `pot.audit.data_audit`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from attest.cli.outputs import check_outputs, commitment_files
from attest.cli.terminal import show

if TYPE_CHECKING:
    from pot.audit.data_audit import DataAudit

__all__ = ["register"]


def register(audit: typer.Typer) -> None:
    """Add `data` below `pot audit`."""
    audit.command(name="data")(data)


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
