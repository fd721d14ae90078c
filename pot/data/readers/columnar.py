"""Readers of containers that hold columns: Arrow, Parquet and Hugging Face folders.

Spec: `specs/containers.md`, "Columns". The same rules hold for all of them (`pot.data.readers.columns`). Only the
columns that a view needs are looked at; the file is hashed whole all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pot.data.readers.columns import (
    NOT_UTF8,
    decodes,
    is_utf8,
    kind_of,
    reached_by,
    spans_of,
    start_of,
    string_slices,
    values_of,
)
from pot.data.readers.reader import ShardReader
from pot.data.readers.record import Record, check_size, json_value, record_cap
from pot.data.readers.source import Source, import_pyarrow, parsing
from pot.errors import Malformed, UsageError

if TYPE_CHECKING:
    from pot.commitments.spans import Spans

__all__ = ["SLICE_BYTES", "SLICE_ROWS", "ColumnarReader"]

SLICE_BYTES: Final = 8 << 20  # of one column, handed over at a time
SLICE_ROWS: Final = 1 << 16
OBJECT_BYTES: Final = 1 << 20  # of all wanted columns, made Python objects at a time: a byte may be one of them

GATHERED_BYTES: Final = 1 << 20  # smaller slices are joined: each one handed over costs as much as hashing 100 KB

# record field -> kinds of column it can come from; "null" is the kind of a column of which no value is known
ALLOWED: Final = {
    "text": ("string", "null"),
    "bytes": ("binary", "null"),
    "tokens": ("list<number>", "list<null>", "null"),
    "image": (
        "binary", "list<list<number>>", "list<list<list<number>>>", "{bytes: binary, path: string}",
        "{bytes: binary, path: null}", "{bytes: binary}", "null",
    ),
}  # fmt: skip


class ColumnarReader(ShardReader):
    """A shard that holds batches of columns. Subclasses give its schema and its batches."""

    def _schema(self, source: Source) -> Any:
        raise NotImplementedError

    def _batches(self, source: Source, columns: list[str] | None) -> Iterator[Any]:
        """Record batches with these columns, in this order (all: None)."""
        raise NotImplementedError

    def schema(self) -> dict[str, str]:
        """Record field -> kind of its column ("string", "number", "list<number>", ...), by the file's schema."""
        with self._opened() as source:
            schema = self._checked_schema(source)
            names = self._wanted or {name: name for name in schema.names}
            return {name: kind_of(schema.field(stored).type, stored) for name, stored in names.items()}

    def spans(self, needs: str) -> Iterator[Spans] | None:
        """Spans over the column's buffers for "text" (UTF-8) and "bytes", where no further field is wanted."""
        if needs not in ("text", "bytes") or needs != self.needs or set(self._wanted) != {needs}:
            return None
        return self._spans(self._wanted[needs])

    def _spans(self, column: str) -> Iterator[Spans]:
        with self._opened() as source:
            for spans, reached in self._until_cut(self._ready(source, column)):
                if len(spans):
                    source.check_length()
                    yield spans
                source.hash_before(reached or spans.data.ctypes.data + int(spans.offsets[-1]))
            source.finish()

    def _ready(self, source: Source, column: str) -> Iterator[tuple[Spans, int]]:
        """Spans, and how far the map was read, as a memory address; 0 if that is the end of the spans."""
        for first, arrays in _gathered(self._slices(source, column)):
            skipped = self.skipped
            try:
                spans = self._usable(_joined(arrays), first)
            except Malformed:
                # one by one, so that what comes before the broken one stands, and its row is named
                self.skipped = skipped
                for array in arrays:
                    yield self._usable(array, first), 0
                    first += len(array)
            else:
                yield spans, start_of(arrays[-1]) if len(arrays) > 1 else 0

    def _slices(self, source: Source, column: str) -> Iterator[tuple[int, Any]]:
        """(first row, array) of bounded size: strings or binary, 64-bit offsets or 32, never a dictionary."""
        self._checked_schema(source)
        first = 0
        for batch in self._batches(source, [column]):
            slices = string_slices(batch.column(0), SLICE_ROWS, SLICE_BYTES)
            while True:
                with parsing(f"{self.path} row {first}", f"column {column!r}"):
                    found = next(slices, None)
                    if found is None:
                        break
                yield first + found[0], found[1]
            first += batch.num_rows

    def _usable(self, array: Any, first: int) -> Spans:
        """Spans of the rows that can be used; the others are left out, or the first of them is refused."""
        import numpy as np

        rows = np.arange(first, first + len(array)) if array.null_count else None
        if rows is not None:
            there = array.is_valid().to_numpy(zero_copy_only=False)
            self._drop(~there, rows, f"null where the record's {self.needs} is needed")
            array, rows = array.drop_null(), rows[there]
        with parsing(f"{self.path} row {first}", "column of strings"):
            good_text = self.needs != "text" or is_utf8(array)
            spans = spans_of(array)
        if good_text and int(np.diff(spans.offsets).max(initial=0)) <= record_cap():
            return spans
        return self._picked(spans, np.arange(first, first + len(spans)) if rows is None else rows)

    def _picked(self, spans: Spans, rows: Any) -> Spans:
        """The spans without those that are no UTF-8 or over the cap."""
        import numpy as np

        from pot.commitments.spans import Spans

        strings = list(spans)
        bad = np.array([self.needs == "text" and not decodes(string) for string in strings])
        long = np.array([len(string) > record_cap() for string in strings])
        self._drop(bad, rows, "not UTF-8")
        self._drop(long & ~bad, rows, f"more than the limit of {record_cap()} bytes for one record")
        return Spans.of(string for string, out in zip(strings, bad | long, strict=True) if not out)

    def _drop(self, which: Any, rows: Any, why: str) -> None:
        if which.any():
            try:
                raise Malformed(f"{self.path} row {rows[which][0]}: {why}")
            except Malformed:
                self._leave_out(int(which.sum()))

    def _pieces(self, source: Source) -> Iterator[tuple[str, Any]]:
        schema = self._checked_schema(source)
        columns = list(dict.fromkeys(self._wanted.values())) or None
        named = {stored: name for name, stored in self._wanted.items()}
        first = 0
        for batch in self._batches(source, columns):
            with parsing(f"{self.path} row {first}", "record batch"):
                batch.validate()
                step = max(1, min(SLICE_ROWS, OBJECT_BYTES * batch.num_rows // max(1, batch.nbytes)))
            for start in range(0, batch.num_rows, step):
                source.check_length()
                where = f"{self.path} row {first + start}"
                with parsing(where, "record batch"):
                    part = batch.slice(start, step)
                    names = columns or schema.names
                    values = {name: values_of(part.column(name), named.get(name, ""), where) for name in names}
                source.hash_before(reached_by(batch, start))
                for row in range(part.num_rows):
                    yield f"{self.path} row {first + start + row}", {name: values[name][row] for name in values}
            first += batch.num_rows

    def _record(self, where: str, piece: dict[str, Any]) -> Record:
        for name, value in piece.items():
            if value is NOT_UTF8:
                raise Malformed(f"{where}: column {name[:64]!r} is not UTF-8")
        if not self._wanted:
            return Record(where, b"", json_value(piece, where))
        value = {name: piece[stored] for name, stored in self._wanted.items()}
        found = value[self.needs]
        if found is None:
            raise Malformed(f"{where}: null where the record's {self.needs} is needed")
        if isinstance(found, (str, bytes)):
            check_size(len(found.encode()) if isinstance(found, str) else len(found), where)
        return Record(where, b"", value)

    def _checked_schema(self, source: Source) -> Any:
        with parsing(str(self.path), f"schema of this {self.container} file"):
            schema = self._schema(source)
            self._check_names(list(schema.names))
            for name, stored in (self._wanted or {name: name for name in schema.names}).items():
                where = f"{self.path}: column {stored[:64]!r}"
                kind = kind_of(schema.field(stored).type, where)
                if self._wanted and kind not in ALLOWED.get(name, (kind,)):
                    possible = " or ".join(ALLOWED[name][:-1])
                    raise UsageError(f"{where} holds {kind[:256]}, but the record's {name} is {possible}")
        return schema

    def _check_names(self, names: list[str]) -> None:
        if not names:
            raise UsageError(f"{self.path}: has no columns; its rows say nothing")
        if len(set(names)) != len(names):
            raise UsageError(f"{self.path}: two columns have one name; a record's fields need different names")
        for name, stored in self._wanted.items():
            if stored not in names:
                known = ", ".join(repr(column[:64]) for column in names[:20])
                raise UsageError(
                    f"{self.path}: no column {stored[:64]!r}, which is needed as the record's {name}; "
                    f"columns are {known}"
                )


def _gathered(slices: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, list[Any]]]:
    """(first row, slices that follow one another), of at least `GATHERED_BYTES` together but for the last."""
    held: list[Any] = []
    first = size = 0
    failure: Malformed | None = None
    try:
        for at, array in slices:
            first = at if not held else first
            held.append(array)
            size += array.nbytes
            if size >= GATHERED_BYTES:
                yield first, held
                held, size = [], 0
    except Malformed as error:
        failure = error  # what came before it stands
    if held:
        yield first, held
    if failure is not None:
        raise failure


def _joined(arrays: list[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else import_pyarrow("columns").concat_arrays(arrays)
