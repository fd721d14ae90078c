"""Composing from files: read the committed records again, with their labels, and sum them up.

Spec: `specs/composition.md`. The records must be the committed ones, in the same order: their digests are made again
and must give the commitment's ordered root.

Shows / does not show: see `pot.data.composition_verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pot.canonical import MAX_INTEGER
from pot.commitments.dataset import DatasetCommitment
from pot.commitments.hashing import DIGEST_BYTES
from pot.commitments.hiding import HidingKey, check_key
from pot.commitments.merkle import ordered_root
from pot.commitments.spans import Spans
from pot.data.commit import how_read
from pot.data.composition import compose, label_of
from pot.data.composition_verify import Composition
from pot.data.digest import content_of, digest_batches
from pot.data.readers import COLUMNAR, Record, ShardReader, open_shard, shard_files
from pot.data.views import View, view_named
from pot.errors import Malformed, Refused, UsageError

__all__ = ["compose_paths"]

_BATCH: Final = 1 << 12


def compose_paths(
    commitment: DatasetCommitment,
    paths: Sequence[Path],
    by: Sequence[str],
    tokens_of: str | None = None,
    *,
    key: HidingKey | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Composition:
    """The composition of committed files. `by`: label fields. `tokens_of`: the field with a record's token count.

    Raises `UsageError` (a view that has no single digest per record, files without labels), `Malformed`, `Refused`
    (the files are not the committed ones), `EnvironmentFailure`.
    """
    check_key(commitment.hiding, key, "the commitment")
    view = view_named(commitment.view)
    if view.gram:
        raise UsageError(f"view {view.name} has many keys a record; compose the commitment of the records themselves")
    how = how_read(commitment)
    stored, fields, on_error = how["container"], how["fields"], how["on_error"]
    wanted = [*by, *([tokens_of] if tokens_of is not None else [])]
    digests: list[bytes] = []
    lengths: list[int] = []
    labels: list[dict[str, str]] = []
    tokens: list[int] = []
    shards = shard_files(list(paths), stored)
    for number, (_, path) in enumerate(shards):
        reader = _open(path, stored, view, fields, wanted, on_error)
        pending: list[bytes] = []
        for record in reader.records():
            content = content_of(view, _renamed(record, view, fields), reader, on_error)
            if content is None:
                continue
            pending.append(content)
            labels.append({name: _label(record, name) for name in by})
            if tokens_of is not None:
                tokens.append(_tokens(record, tokens_of))
            if len(pending) >= _BATCH:
                _digest(pending, commitment.view, key, digests, lengths)
        _digest(pending, commitment.view, key, digests, lengths)
        if progress is not None:
            progress(number + 1, len(shards))
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
    if len(rows) != int(commitment.records.count) or ordered_root(rows).hex() != commitment.records.root_blake3:
        raise Refused(f"{paths[0]}: not the records that were committed; their ordered root is another")
    return compose(commitment, rows, lengths, list(by), labels, tokens_of, tokens if tokens_of is not None else None)


def _open(
    path: Path, container: str, view: View, fields: dict[str, str], wanted: Sequence[str], on_error: str
) -> ShardReader:
    """A reader that gives labels too: of columns only the wanted ones, elsewhere whole records, which may lack some."""
    if container not in COLUMNAR or view.needs == "object":
        return open_shard(path, container, {}, on_error, needs="object")
    return open_shard(path, container, {**{name: name for name in wanted}, **fields}, on_error, needs=view.needs)


def _renamed(record: Record, view: View, fields: dict[str, str]) -> Record:
    """The record with what the view needs under the view's name."""
    stored = fields.get(view.needs)
    if stored is None or record.value is None or view.needs in record.value:
        return record
    return Record(record.where, record.data, {**record.value, view.needs: record.value.get(stored)})


def _digest(pending: list[bytes], view: str, key: HidingKey | None, digests: list[bytes], lengths: list[int]) -> None:
    """Move pending contents to their digests and view lengths."""
    if not pending:
        return
    chosen = view_named(view)
    viewed = chosen.transform(Spans.of(pending))
    lengths.extend(np.diff(viewed.offsets).tolist())
    digests.extend(rest for _, _, _, rest in digest_batches(iter([Spans.of(pending)]), chosen, "training", key))
    pending.clear()


def _label(record: Record, name: str) -> str:
    try:
        return label_of(_field(record, name))
    except Malformed as error:
        raise Malformed(f"{record.where}: field {name[:64]!r}: {error}") from None


def _tokens(record: Record, name: str) -> int:
    value: Any = _field(record, name)
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise Malformed(f"{record.where}: field {name!r} does not hold a number of tokens")
    return value


def _field(record: Record, name: str) -> Any:
    if record.value is None:
        raise UsageError(f"{record.where}: is a plain file without fields; a composition needs labelled records")
    return record.value.get(name)
