"""`pot inspect`: what a file says, its signature and truth unchecked.

Shows: the content of a file of one of our formats, cleaned for a terminal.
Does not show: that any of it is so, or who wrote it; `pot verify` does that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from attest.cli.terminal import clean, say

__all__ = ["describe", "register"]

_MAX_INSPECT_BYTES: Final = 64 << 20
_MAX_SHOWN_LINES: Final = 1000


def register(app: typer.Typer) -> None:
    """Add `pot inspect`."""
    app.command()(inspect)


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="claims.jsonl, an audit, or a JSON document of ours.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")] = False,
) -> None:
    """Show what a file says, without believing it. Signatures are not checked here.

    Example: pot inspect release/claims.jsonl
    """
    from pot.canonical import read_file

    values = describe(read_file(file, limit=_MAX_INSPECT_BYTES), what=str(file))
    say("content only: no signature and no claim was checked; use pot verify")
    for value in values[:_MAX_SHOWN_LINES]:
        if as_json:
            typer.echo(json.dumps(value, sort_keys=True))
        else:
            for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"):
                indent = len(line) - len(line.lstrip(" "))
                typer.echo(" " * indent + clean(line[indent:]))
    if len(values) > _MAX_SHOWN_LINES:
        say(f"{len(values) - _MAX_SHOWN_LINES} further lines are left out")


def describe(data: bytes, *, what: str) -> list[Any]:
    """The JSON values in a file's bytes; Sigstore bundles are shown as the statements that they carry.

    Raises `Malformed` for anything that is not strict JSON, or JSON lines.
    """
    from pot.canonical import MAX_DOCUMENT_BYTES, MAX_LINE_BYTES, parse
    from pot.errors import Malformed, PotError

    if not data.strip():
        raise Malformed(f"{what}: is empty")
    try:
        return [_unwrap(parse(data, what=what, limit=MAX_DOCUMENT_BYTES), what)]
    except PotError:
        if data.count(b"\n") < 2 and not data.rstrip(b"\n").count(b"\n"):
            raise
    lines = [line for line in data.split(b"\n") if line]
    return [
        _unwrap(parse(line, what=f"{what} line {number}", limit=MAX_LINE_BYTES), f"{what} line {number}")
        for number, line in enumerate(lines, 1)
    ]


def _unwrap(value: Any, what: str) -> Any:
    """The statement in a Sigstore bundle, with its name; any other value as it is."""
    from attest.bundle import BUNDLE_MEDIA_TYPE, SigstoreBundle
    from attest.statement import MAX_STATEMENT_BYTES
    from pot.canonical import parse, sha256_hex

    if not isinstance(value, dict) or value.get("mediaType") != BUNDLE_MEDIA_TYPE:
        return value
    bundle = SigstoreBundle.from_value(value, what=what)
    payload = bundle.dsse_envelope.payload_bytes()
    return {
        "payload_sha256": sha256_hex(payload),
        "key_hint": bundle.verification_material.public_key.hint,
        "statement": parse(payload, what=what, limit=MAX_STATEMENT_BYTES),
    }
