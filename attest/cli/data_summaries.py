"""`pot data portrait` and `compose`: a membership sketch of committed data, and sums per label.

Formats: `specs/commitments.md` ("Portrait"), `specs/composition.md`. Registered by `attest.cli.data`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from attest.cli.outputs import check_outputs, commitment_files
from attest.cli.terminal import progress_bar, show

__all__ = ["COMMANDS"]

_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def portrait(
    commitment: Annotated[Path, typer.Argument(metavar="C.json", help="The commitment, its listing beside it.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the portrait.")] = None,
    check: Annotated[Path | None, typer.Option("--check", help="Instead: check this portrait.")] = None,
    rate: Annotated[str, typer.Option("--rate", help="Share of absent records that it may answer maybe for.")] = "1e-6",
    as_json: _AsJson = False,
) -> None:
    """Make a portrait: a compact sketch that answers "no" or "maybe" for any record (pot data query).

    It follows from the commitment's listing and the rate alone, so whoever has the listing can check it: exit 1 where
    it is another. Like the listing, it lets others test guesses about records.

    Examples:

    pot data portrait train.json --rate 1e-6 --out train.portrait

    pot data portrait train.json --check train.portrait
    """
    from pot.canonical import read_file, write_file
    from pot.commitments.merkle_verify import ProofRefused
    from pot.data.commit import load_committed
    from pot.data.portrait import make_portrait
    from pot.data.portrait_verify import MAX_PORTRAIT_BYTES, Portrait, check_portrait
    from pot.errors import UsageError

    if (out is None) == (check is None):
        raise UsageError("give either --out, to make a portrait, or --check, to check one")
    if out is not None:
        check_outputs([out], reads=commitment_files(commitment))
    with progress_bar("reading commitment"):
        committed = load_committed(commitment)
    if check is not None:
        found = Portrait.from_bytes(read_file(check, limit=MAX_PORTRAIT_BYTES), what=str(check))
        try:
            check_portrait(found, committed.commitment, committed.keys)
        except ProofRefused as error:
            value = {"portrait": str(check), "holds": False, "code": error.code, "detail": str(error)}
            show(as_json, value, [f"{check}: is not the portrait of {commitment}: {error}"])
            raise typer.Exit(1) from None
        show(as_json, {"portrait": str(check), "holds": True}, [f"{check}: is the portrait of {commitment}"])
        return
    made = make_portrait(committed.commitment, committed.keys, _share(rate))
    data = made.to_bytes()
    if out is not None:
        write_file(out, data)
    entries = made.header.entries
    per_key = 8 * len(data) / max(1, int(entries))
    value = {"portrait": str(out), "bytes": str(len(data)), "entries": entries, "bits": made.header.bits}
    show(as_json, value, [f"{out}: {entries} keys in {len(data)} bytes, {per_key:.1f} bits each"])


def _share(text: str) -> float:
    from pot.errors import UsageError

    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise UsageError(f"--rate {text[:32]}: a number between 0 and 1 is expected, such as 1e-6")
    return rate


def compose(
    commitment: Annotated[
        Path, typer.Argument(metavar="C.json", help="The commitment that the data was committed with.")
    ],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="The committed files, in the same order.")],
    by: Annotated[list[str], typer.Option("--by", help="Field to sum by: licence, source; repeatable.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the composition.")],
    tokens: Annotated[str | None, typer.Option("--tokens", help="Field with each record's number of tokens.")] = None,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="The key of a hidden commitment.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Sum records, bytes and tokens per label (licence, source, ...) in a Merkle-sum tree.

    Labels are as the data says; that they are true is not shown.

    Example: pot data compose train.json train.jsonl --by licence --by source --out train.composition
    """
    from attest.cli.data import load_key
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file, write_file
    from pot.commitments.dataset import DatasetCommitment
    from pot.data.compose import compose_paths

    check_outputs([out], reads=[*commitment_files(commitment), *paths, *([key_file] if key_file else [])])
    document = DatasetCommitment.from_bytes(read_file(commitment, limit=MAX_DOCUMENT_BYTES), what=str(commitment))
    with progress_bar("reading") as progress:
        made = compose_paths(document, paths, by, tokens, key=load_key(key_file), progress=progress)
    write_file(out, made.to_bytes())
    lines = [f"{out}: {len(made.groups)} groups"]
    for group in made.groups[:50]:
        names = ", ".join(f"{name} {value}" for name, value in group.labels.items())
        counted = "" if made.tokens_of is None else f", {group.tokens} tokens"
        lines.append(f"  {names}: {group.records} records, {group.bytes} bytes{counted}")
    show(as_json, {"composition": str(out), "sha256": made.sha256(), "groups": str(len(made.groups))}, lines)


COMMANDS: Final = (portrait, compose)
