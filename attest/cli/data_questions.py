"""`pot data exclude`, `include` and `query`: what is, and what is not, in committed data.

Formats: `specs/commitments.md`. Registered by `attest.cli.data`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from attest.cli.outputs import check_outputs, commitment_files
from attest.cli.terminal import progress_bar, say, show
from pot.errors import UsageError

if TYPE_CHECKING:
    from pot.commitments.dataset import DatasetCommitment
    from pot.commitments.hiding import HidingKey
    from pot.data.commit import Committed
    from pot.data.query import MembershipAnswer
    from pot.data.readers import Record

__all__ = ["COMMANDS"]

_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
_Training = Annotated[Path, typer.Argument(metavar="C.json", help="Commitment to the training data.")]


def _load(training: Path, other: Path, out: Path) -> tuple[Committed, Committed]:
    """Both commitments with their listings; `out` is neither of their files."""
    from pot.data.commit import load_committed

    check_outputs([out], reads=[*commitment_files(training), *commitment_files(other)])
    with progress_bar("reading commitments"):
        return load_committed(training), load_committed(other)


def exclude(
    training: _Training,
    exclusion: Annotated[Path, typer.Argument(metavar="X.json", help="Commitment to X (made with --as-exclusion).")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the exclusion file.")],
    listing: Annotated[bool, typer.Option("--list", help="On overlap, also print X's overlapping indices.")] = False,
    list_training: Annotated[
        bool, typer.Option("--list-training", help="On overlap, also print the training records' indices.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Show that no record of X is in the training data, or count how many are.

    What "in" means is the view's matter: the same bytes (text/1, json/1, ...), or a run of bytes in common (tiles50/1,
    winnow50/1). Exit 0: nothing overlaps, the exclusion file is written. Exit 1: X overlaps; the number of its records
    that are in the training data is printed, nothing is written, and no content is shown.

    Example: pot data exclude train.json x.json --out x.exclusion
    """
    from pot.canonical import write_file
    from pot.commitments.listing import keyless
    from pot.data.exclude import Overlap
    from pot.data.exclude import exclude as exclude_data
    from pot.data.views import view_named

    d, x = _load(training, exclusion, out)
    with progress_bar("looking for X"):
        result = exclude_data(d, x)
    records = x.commitment.records.count
    if isinstance(result, Overlap):
        value: dict[str, Any] = {"excluded": False, "overlap": str(result.count), "records": records}
        lines = [str(result.count)]
        for wanted, name, indices in (
            (listing, "indices", result.indices),
            (list_training, "training_indices", result.training_indices),
        ):
            if wanted:
                value[name] = [str(index) for index in indices]
                lines += value[name]
        show(as_json, value, lines)
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
    if d.commitment.gram:
        told = view_named(d.commitment.view).sentence
    short = keyless(int(records), x.commitment.gram, x.listing)
    if short:
        value["too_short"] = str(short)
        told += f"; {short} of X's records are too short for a key, and were not looked for"
    show(as_json, value, [f"{out}: {told} ({len(data)} bytes)"])


def include(
    training: _Training,
    inclusion: Annotated[Path, typer.Argument(metavar="Y.json", help="Commitment to Y (made with --as-inclusion).")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the inclusion file.")],
    listing: Annotated[bool, typer.Option("--list", help="Where some are missing, print Y's indices.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Show that every record of Y is in the training data, or count how many are missing.

    Exit 0: all are there, the inclusion file is written. Exit 1: some are missing; their number is printed.

    Example: pot data include train.json safety.json --out safety.inclusion
    """
    from pot.canonical import write_file
    from pot.data.include import Missing
    from pot.data.include import include as include_data

    d, y = _load(training, inclusion, out)
    with progress_bar("looking for Y"):
        result = include_data(d, y)
    records = y.commitment.records.count
    if isinstance(result, Missing):
        value: dict[str, Any] = {"included": False, "missing": str(result.count), "records": records}
        lines = [str(result.count)]
        if listing:
            value["indices"] = [str(index) for index in result.indices]
            lines += value["indices"]
        show(as_json, value, lines)
        say(f"pot: {result.count} of Y's {records} records are not in the training data; no inclusion file was written")
        raise typer.Exit(1)
    data = result.to_bytes()
    write_file(out, data)
    value = {
        "included": True,
        "missing": "0",
        "records": records,
        "inclusion": str(out),
        "bytes": str(len(data)),
        "training_sha256": result.header.training_sha256,
        "inclusion_sha256": result.header.inclusion_sha256,
    }
    told = f"all of Y's {records} records are among the {d.commitment.records.count} training records"
    show(as_json, value, [f"{out}: {told} ({len(data)} bytes)"])


def query(
    target: Annotated[Path, typer.Argument(metavar="C.json|PORTRAIT", help="The commitment or portrait to ask.")],
    record: Annotated[Path, typer.Option("--record", help="A file that holds the one record.")],
    commitment: Annotated[
        Path | None, typer.Option("--commitment", help="For a portrait: the commitment that settles a maybe.")
    ] = None,
    answer: Annotated[
        Path | None, typer.Option("--answer", help="An answer that the data's owner wrote with --out.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="The key of a hidden commitment.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the answer with its proof here.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Ask whether one record is in the committed data, with an inclusion or a non-membership proof.

    Exit 0: it is there. Exit 1: it is not there. Exit 3: a portrait says maybe, and there is nothing to settle it
    with: give --commitment (with its listing), or --commitment and --answer (what its owner wrote with --out). The
    record's file has the form that the view needs: one JSON object (.jsonl, one line), or a plain file.

    Examples:

    pot data query train.json --record image.jsonl --json

    pot data query train.portrait --record song.txt
    """
    from attest.cli.data import load_key
    from pot.canonical import write_file

    if out is not None:
        others = [path for path in (record, answer, key_file) if path is not None]
        asked_files = [file for path in (target, commitment) if path is not None for file in commitment_files(path)]
        check_outputs([out], reads=[*others, *asked_files])
    key, portrait = load_key(key_file), _portrait(target)
    if portrait is not None:
        _ask_portrait(portrait, target, record, key, settled=commitment is not None, as_json=as_json)
    source = target if commitment is None else commitment
    asked, found = _answered(source, record, key, answer)
    if portrait is not None and portrait.header.commitment_sha256 != asked.sha256():
        raise UsageError(f"{source}: not the commitment that the portrait {target} was made from")
    if out is not None:
        write_file(out, found.to_bytes())
    if found.member:
        text = f"in: index {found.index} of {asked.records.count} records, copies {found.copies}"
    else:
        text = f"not in: none of the {asked.records.count} records, shown by a non-membership proof"
    show(as_json, json.loads(found.to_bytes()), [text])
    if not found.member:
        raise typer.Exit(1)


def _answered(
    source: Path, record: Path, key: HidingKey | None, answer: Path | None
) -> tuple[DatasetCommitment, MembershipAnswer]:
    """The commitment, and the answer for a record: made from its listing, or read and checked."""
    from pot.canonical import MAX_DOCUMENT_BYTES, read_file
    from pot.commitments.dataset import DatasetCommitment
    from pot.commitments.hiding import check_key
    from pot.data.commit import load_committed
    from pot.data.query import MembershipAnswer, check_answer, digest_of
    from pot.data.query import answer as answer_for

    if answer is None:
        with progress_bar("reading commitment"):
            committed = load_committed(source)
        asked = committed.commitment
    else:
        asked = DatasetCommitment.from_bytes(read_file(source, limit=MAX_DOCUMENT_BYTES), what=str(source))
    check_key(asked.hiding, key, str(source))
    digest = digest_of(_one(record, asked.view), asked.view, key)
    if answer is None:
        found = answer_for(committed, digest)
    else:
        found = MembershipAnswer.from_bytes(read_file(answer, limit=MAX_DOCUMENT_BYTES), what=str(answer))
        if found.record_blake3 != digest.hex():
            raise UsageError(f"{answer}: is about another record, {found.record_blake3}")
    check_answer(asked, found)
    return asked, found


def _one(path: Path, view: str) -> Record:
    from pot.data.readers import read_one
    from pot.data.views import view_named

    return read_one(path, view_named(view).needs)


def _portrait(path: Path) -> Any:
    """The portrait in a file, or None where the file does not begin as one."""
    from pot.canonical import read_file
    from pot.data.portrait_verify import MAX_HEADER_BYTES, MAX_PORTRAIT_BYTES, Portrait

    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as stream:
        first, newline, _ = stream.read(MAX_HEADER_BYTES + 1).partition(b"\n")
    if not newline or b'"version":"pot/portrait/' not in first:
        return None
    return Portrait.from_bytes(read_file(path, limit=MAX_PORTRAIT_BYTES), what=str(path))


def _ask_portrait(
    portrait: Any, path: Path, record: Path, key: HidingKey | None, *, settled: bool, as_json: bool
) -> None:
    """Say what the portrait says about a record; ends the command, unless that is maybe and can be `settled`."""
    from pot.commitments.hiding import check_key
    from pot.data.query import keys_for

    check_key(portrait.header.hiding, key, str(path))
    view = portrait.header.view
    keys = keys_for(_one(record, view), view, key)
    hits = sum(portrait.may_contain(item) for item in keys)
    told = f"no: none of the record's {len(keys)} keys is in the portrait's set"
    if hits:
        told = f"maybe: {hits} of the record's {len(keys)} keys may be in the set"
        if settled:
            say(f"the portrait says {told}")
            return
    show(as_json, {"answer": "maybe" if hits else "no"}, [told])
    if hits:
        say(f"pot: {_next_step(view)}")
    raise typer.Exit(3 if hits else 1)


def _next_step(view: str) -> str:
    from pot.commitments.dataset import GRAM_VIEWS

    if view in GRAM_VIEWS:
        return (
            f"a maybe under {view} is settled by its owner with pot data exclude: commit the record as an exclusion set"
        )
    return "a maybe is settled by the commitment and its listing, or an answer of its owner: --commitment, --answer"


COMMANDS: Final = (exclude, include, query)
