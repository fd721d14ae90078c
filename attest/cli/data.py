"""`pot data`: commit to data, show that X is not in it, ask about one record.

Formats: `specs/commitments.md`. Results go to standard output, talk and the progress bar to standard error. No record's
content is ever printed, only counts, indices and digests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attest.cli.outputs import check_outputs
from attest.cli.terminal import clean, say

if TYPE_CHECKING:
    from pot.data.commit import Progress

__all__ = ["app", "register"]

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Commit to data, show that X is not in it, ask about one record.\n\n"
    "Example: pot data commit train.jsonl --view json/1 --out train.json",
)

_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def register(main: typer.Typer) -> None:
    """Add `pot data` with its commands."""
    main.add_typer(app, name="data")


@app.command()
def commit(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files or folders, in this order.")],
    view: Annotated[str, typer.Option("--view", help="How records become bytes: pixels/1, json/1 or file/1.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the commitment; its digest list goes beside it.")],
    as_exclusion: Annotated[bool, typer.Option("--as-exclusion", help="Commit to a set X to be excluded.")] = False,
    workers: Annotated[int, typer.Option("--workers", help="Processes, one file each at a time.")] = 1,
    as_json: _AsJson = False,
) -> None:
    """Commit to the records of files or folders, seen through a view.

    Writes C.json (publish it) and C.digests (32 bytes per record; it stays with the data, except for a set X, whose
    list is published too).

    Examples:

    pot data commit train.jsonl --view pixels/1 --out train.json

    pot data commit books/ --view file/1 --out x.json --as-exclusion --workers 4
    """
    from pot.data.commit import commit as commit_data
    from pot.data.commit import digests_path, write_committed

    check_outputs([out], reads=paths)
    check_outputs([digests_path(out)], reads=paths)
    with _bar("reading") as progress:
        committed = commit_data(paths, view, "exclusion" if as_exclusion else "training", workers, progress)
    write_committed(committed, out)
    commitment = committed.commitment
    _print(
        as_json,
        {
            "commitment": str(out),
            "digests": str(digests_path(out)),
            "sha256": commitment.sha256(),
            "role": commitment.role,
            "view": commitment.view,
            "records": commitment.records.model_dump(),
            "set": commitment.set.model_dump(),
        },
        [
            f"{out}",
            f"  records  {commitment.records.count}, {commitment.set.count} distinct, seen as {commitment.view}",
            f"  order    {commitment.records.root_blake3}",
            f"  set      {commitment.set.root_blake3}",
            f"  sha256   {commitment.sha256()}",
        ],
    )


@app.command()
def exclude(
    training: Annotated[Path, typer.Argument(metavar="C.json", help="Commitment to the training data.")],
    exclusion: Annotated[Path, typer.Argument(metavar="X.json", help="Commitment to X (made with --as-exclusion).")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the exclusion file.")],
    listing: Annotated[bool, typer.Option("--list", help="On overlap, also print X's overlapping indices.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Show that no record of X is in the training data, or count how many are.

    Exit 0: nothing overlaps, the exclusion file is written. Exit 1: X overlaps; the number of its records that are in
    the training data is printed, nothing is written, and no content is shown.

    Example: pot data exclude train.json x.json --out x.exclusion
    """
    from pot.canonical import write_file
    from pot.data.commit import digests_path, load_committed
    from pot.data.exclude import Overlap
    from pot.data.exclude import exclude as exclude_data

    check_outputs([out], reads=[training, digests_path(training), exclusion, digests_path(exclusion)])
    with _bar("reading commitments"):
        d, x = load_committed(training), load_committed(exclusion)
    with _bar("looking for X"):
        result = exclude_data(d, x)
    records = x.commitment.records.count
    if isinstance(result, Overlap):
        value: dict[str, Any] = {"excluded": False, "overlap": str(result.count), "records": records}
        lines = [str(result.count)]
        if listing:
            value["indices"] = [str(index) for index in result.indices]
            lines += value["indices"]
        _print(as_json, value, lines)
        say(f"pot: {result.count} of X's {records} records are in the training data; no exclusion file was written")
        raise typer.Exit(1)
    data = result.to_bytes()
    write_file(out, data)
    value = {
        "excluded": True,
        "overlap": "0",
        "records": records,
        "exclusion": str(out),
        "bytes": str(len(data)),
        "training_sha256": result.header.training_sha256,
        "exclusion_sha256": result.header.exclusion_sha256,
    }
    told = f"none of X's {records} records is among the {d.commitment.records.count} training records"
    _print(as_json, value, [f"{out}: {told} ({len(data)} bytes)"])


@app.command()
def query(
    commitment: Annotated[Path, typer.Argument(metavar="C.json", help="The commitment to ask.")],
    record: Annotated[Path, typer.Option("--record", help="A file that holds the one record.")],
    as_json: _AsJson = False,
) -> None:
    """Ask whether one record is in the committed data, with an inclusion or a non-membership proof.

    Exit 0: it is there. Exit 1: it is not there. With --json the proof is printed. For pixels/1 and json/1 the file
    holds one JSON object (.jsonl, one line), for file/1 the file is the record.

    Example: pot data query train.json --record image.jsonl --json
    """
    from pot.data.commit import load_committed
    from pot.data.query import answer, check_answer, digest_of
    from pot.data.readers import read_one
    from pot.data.views import view_named

    with _bar("reading commitment"):
        committed = load_committed(commitment)
    view = committed.commitment.view
    found = answer(committed, digest_of(read_one(record, view_named(view).container), view))
    check_answer(committed.commitment, found)
    if found.member:
        text = f"in: index {found.index} of {committed.commitment.records.count} records, copies {found.copies}"
    else:
        text = f"not in: none of the {committed.commitment.records.count} records, shown by a non-membership proof"
    _print(as_json, json.loads(found.to_bytes()), [text])
    if not found.member:
        raise typer.Exit(1)


def _print(as_json: bool, value: dict[str, Any], lines: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps(value, sort_keys=True))
    else:
        typer.echo("\n".join(clean(line) for line in lines))


@contextmanager
def _bar(label: str) -> Iterator[Progress | None]:
    """A progress bar on standard error, gone when done; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
