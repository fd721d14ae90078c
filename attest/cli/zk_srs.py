"""`pot zk srs`: reference strings of step proofs: making one, and saying what one is worth.

Shows / does not show: see `pot.zk.srs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from attest.cli.outputs import check_outputs, refuse_existing
from attest.cli.terminal import say, show

__all__ = ["Json", "rows_of", "srs_app"]

srs_app = typer.Typer(
    name="srs",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Structured reference strings.\n\nExample: pot zk srs new --logrows 13 --out srs",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

_CEREMONY: Final = "class public-ceremony: sound unless all of its contributors conspired"
_OTHER: Final = (
    "class verifier for you if you made it where no prover could look, else insecure-local: whoever knows its secret"
    " can prove anything under it"
)


@srs_app.command("new")
def srs_new(
    logrows: Annotated[int, typer.Option("--logrows", min=9, max=20, help="For circuits of 2^K rows.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write, 128 * 2^K bytes; it must not exist.")],
    as_json: Json = False,
) -> None:
    """Make a reference string whose secret only this process knew: class verifier, for whoever runs it.

    Run it as the verifier, where no prover can read memory. Any kit of these rows can be built on the file.

    Example: pot zk srs new --logrows 13 --out srs
    """
    from pot.canonical import sha256_hex, write_file
    from pot.zk.engine import EzklEngine
    from pot.zk.srs import make_srs

    refuse_existing([out], "kits may have been made with it")
    check_outputs([out])
    say(f"making an SRS for 2^{logrows} rows")
    made = make_srs(EzklEngine(), logrows)
    write_file(out, made)
    value = {"class": "verifier", "logrows": logrows, "sha256": sha256_hex(made)}
    show(as_json, value, [
        f"{out}: SRS for circuits of 2^{logrows} rows", f"  sha256   {value['sha256']}", "  class    verifier",
        "its secret was in this machine's memory and is gone: sound against every prover who could not look there",
        "give provers the file; put its digest and class into your policy (zk.srs)",
    ])  # fmt: skip


@srs_app.command("show")
def srs_show(file: Annotated[Path, typer.Argument(metavar="FILE", help="An SRS file.")], as_json: Json = False) -> None:
    """Say for how many rows a reference string is, its digest, and what it is worth.

    Example: pot zk srs show srs
    """
    from pot.canonical import read_file, sha256_hex
    from pot.zk.srs import MAX_SRS_BYTES, classify

    data = read_file(file, limit=MAX_SRS_BYTES)
    rows, digest = rows_of(file, data, None), sha256_hex(data)
    known = classify(digest, {}) == "public-ceremony"
    value = {"class": "public-ceremony" if known else None, "logrows": rows, "sha256": digest}
    worth = _CEREMONY if known else _OTHER
    show(as_json, value, [f"{file}: SRS for circuits of 2^{rows} rows", f"  sha256   {digest}", f"  worth    {worth}"])


def rows_of(path: Path, data: bytes, wanted: int | None) -> int:
    """k of an SRS file. Raises `Malformed`, and `UsageError` where other rows are wanted."""
    from pot.errors import Malformed, UsageError
    from pot.zk.srs import srs_logrows

    try:
        rows = srs_logrows(data)
    except Malformed as error:
        raise Malformed(f"{path}: {error}") from None
    if wanted not in (None, rows):
        raise UsageError(f"{path}: made for 2^{rows} rows, --logrows asks for 2^{wanted}")
    return rows
