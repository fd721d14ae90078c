"""`pot data`: commit to data, show what is and what is not in it, summarise it.

Formats: `specs/commitments.md`. Results go to standard output, talk and the progress bar to standard error. No record's
content is ever printed, only counts, indices and digests. This module commits; the questions and the summaries have
modules of their own.
"""

from __future__ import annotations

import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attest.cli.outputs import check_outputs
from attest.cli.terminal import progress_bar, say, show

if TYPE_CHECKING:
    from pot.commitments.hiding import HidingKey

__all__ = ["app", "load_key", "register"]

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Commit to data, show what is and what is not in it, summarise it.\n\n"
    "Example: pot data commit train.jsonl --view json/1 --out train.json",
)


class OnError(StrEnum):
    """What `--on-error` takes."""

    STOP = "stop"
    SKIP = "skip"


class HidingMethod(StrEnum):
    """What `pot data key --method` takes."""

    BLAKE3 = "blake3"
    ECVRF = "ecvrf"


def register(main: typer.Typer) -> None:
    """Add `pot data` with its commands."""
    from attest.cli import data_questions, data_summaries, door

    for module in (data_questions, data_summaries, door):
        for command in module.COMMANDS:
            app.command()(command)
    main.add_typer(app, name="data")


def load_key(path: Path | None) -> HidingKey | None:
    """The hiding key of a key file, if one is named."""
    if path is None:
        return None
    from pot.commitments.hiding import load_key as load

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        key = load(path)
    for warning in caught:
        say(f"pot: {warning.message}")
    return key


@app.command()
def commit(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files or folders, in this order.")],
    view: Annotated[
        str, typer.Option("--view", help="How records become bytes: text/1, json/1, ...; see specs/views.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where to write the commitment; its listing goes beside it.")],
    as_exclusion: Annotated[bool, typer.Option("--as-exclusion", help="Commit to a set X to be excluded.")] = False,
    as_inclusion: Annotated[bool, typer.Option("--as-inclusion", help="Commit to a set Y to be included.")] = False,
    container: Annotated[
        str | None, typer.Option("--container", help="How records are stored; default: by the files' names.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", help="What the view needs and its name in the container: text=content."),
    ] = None,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="Stop at what cannot be read, or skip and count it.")
    ] = OnError.STOP,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Hide the leaves under this key (pot data key).")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes, 1 to 256, one file each at a time.")] = 1,
    ray: Annotated[
        str | None, typer.Option("--ray", help="Address of a Ray cluster that sees the same paths, or auto.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Commit to the records of files or folders, seen through a view.

    Writes C.json (publish it) and its listing, C.digests (32 bytes per record) or C.keys (tiles50/1, winnow50/1,
    winnow50-tokens/1, minhash/1). The listing stays with the data, except that of a set X or Y, which is published.
    Start the same command again after an interruption: finished files are not read again.

    Examples:

    pot data commit train.jsonl --view pixels/1 --out train.json

    pot data commit shards/ --view text/1 --field text=content --out train.json --workers 4

    pot data commit books/ --view winnow50/1 --out x.json --as-exclusion
    """
    from pot.commitments.dataset import Role, listing_suffix
    from pot.data.commit import commit as commit_data
    from pot.data.commit import listing_path, write_committed
    from pot.errors import UsageError

    if as_exclusion and as_inclusion:
        raise UsageError("--as-exclusion and --as-inclusion exclude each other")
    role: Role = "exclusion" if as_exclusion else "inclusion" if as_inclusion else "training"
    reads = [*paths, *([key_file] if key_file else [])]
    check_outputs([out], reads=reads)
    listing = out.with_name(out.name.removesuffix(".json") + listing_suffix(view))
    check_outputs([listing], reads=reads)
    _check_place(out, listing, paths)
    work = out.with_name(f"{out.name}.work")
    if work.is_dir():
        say(f"going on with what {work} holds; files that were finished and have not changed are not read again")
    with progress_bar("reading") as progress:
        committed = commit_data(
            paths,
            view,
            role,
            workers,
            progress,
            container=container,
            fields=_fields(field or []),
            on_error=on_error.value,
            key=load_key(key_file),
            work=work,
            ray=ray,
        )
    write_committed(committed, out, work)
    commitment = committed.commitment
    value = {
        "commitment": str(out),
        "digests": str(listing_path(out, commitment)),
        "sha256": commitment.sha256(),
        "role": commitment.role,
        "view": commitment.view,
        "records": commitment.records.model_dump(),
        "set": commitment.set.model_dump(),
        "files": str(len(commitment.shards)),
        "container": commitment.container,
    }
    keys = " keys" if commitment.gram else ""
    kind = "plain files, each a record" if commitment.container in ("file", "text", "images") else commitment.container
    lines = [
        f"{out}",
        f"  records  {commitment.records.count}, {commitment.set.count} distinct{keys}, seen as {commitment.view}",
        f"  order    {commitment.records.root_blake3}",
        f"  set      {commitment.set.root_blake3}",
        f"  sha256   {commitment.sha256()}",
        f"  files    {len(commitment.shards)}, read as {kind}",
    ]
    if commitment.reading is not None and (commitment.reading.skipped or commitment.reading.cut):
        skipped, cut = commitment.reading.skipped or "0", commitment.reading.cut or "0"
        value |= {"skipped": skipped, "cut": cut}
        lines.append(f"  left out {skipped} records and the rest of {cut} files, which could not be read")
    if commitment.hiding is not None:
        value["hiding"] = commitment.hiding.model_dump()
        lines.append(f"  hidden   {commitment.hiding.method}, key id {commitment.hiding.id[:16]}")
    show(as_json, value, lines)


def _check_place(out: Path, listing: Path, paths: list[Path]) -> None:
    """Refuse a place where this commitment would be read as data, or take another one's listing away."""
    from pot.errors import UsageError

    if out.suffix in (".digests", ".keys"):
        raise UsageError(f"{out}: is the name of a listing; name the commitment, such as {out.stem}.json")
    if listing.exists() and not out.exists():
        raise UsageError(
            f"{listing}: is the listing of another commitment and would be written over; choose another --out"
        )
    place = out.resolve()
    for path in paths:
        if path.is_dir() and path.resolve() in place.parents:
            raise UsageError(f"{out}: lies below {path}, and would be read as data the next time; write it elsewhere")


def _fields(given: list[str]) -> dict[str, str]:
    from pot.errors import UsageError

    found: dict[str, str] = {}
    for item in given:
        name, equals, source = item.partition("=")
        if not (name and equals and source) or name in found:
            raise UsageError(f"--field {item[:64]}: NAME=SOURCE is expected, each NAME once: --field text=content")
        found[name] = source
    return found


@app.command()
def key(
    out: Annotated[Path, typer.Argument(metavar="KEY", help="Where to write the key, with mode 0600.")],
    method: Annotated[
        HidingMethod, typer.Option("--method", help="blake3: fast; ecvrf: others can ask with pot data ask.")
    ] = HidingMethod.BLAKE3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Make a key for hidden commitments: without it nobody can test guesses about records against them.

    X's owner needs the same key to commit to X (blake3), or asks the key's holder (ecvrf, see pot data ask).

    Example: pot data key hiding.key
    """
    from pot.commitments.hiding import new_key

    made = new_key(f"{'blake3-keyed' if method is HidingMethod.BLAKE3 else 'ecvrf'}/1")
    made.save(out)
    hiding = made.hiding
    show(as_json, {"key": str(out), **hiding.model_dump()}, [f"{out}: {hiding.method} key, id {hiding.id}"])
