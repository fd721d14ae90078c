"""Arrow's types as fields of a record, and columns of strings as spans.

Spec: `specs/containers.md`, "Columns". Types without a JSON form are refused by name of their column; nothing is turned
into text on the way.

Functions here raise what pyarrow raises, or `ValueError`; `pot.data.readers.columnar` adds the place and makes it ours.

Shows: spans are the bytes that stand in a column's buffers, within them, and UTF-8 where that was asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pot.canonical import MAX_DEPTH
from pot.data.readers.record import check_size
from pot.data.readers.source import import_pyarrow
from pot.errors import LimitExceeded, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pot.commitments.spans import Spans

__all__ = [
    "NOT_UTF8",
    "decodes",
    "is_utf8",
    "kind_of",
    "reached_by",
    "spans_of",
    "start_of",
    "string_slices",
    "values_of",
]

MAX_VALUES: Final = 1 << 26  # in the rows that become Python objects at a time
NOT_UTF8: Final = object()  # in place of a string that is none


def kind_of(column_type: Any, where: str, depth: int = 1) -> str:
    """A type without what makes no difference to a record: widths of integers, sizes of offsets, dictionaries.

    Raises `UsageError` for types that JSON has no form for.
    """
    import pyarrow.types as is_type

    if depth >= MAX_DEPTH:
        raise UsageError(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(column_type, import_pyarrow("columns").BaseExtensionType):
        return kind_of(column_type.storage_type, where, depth)
    if depth > 1 and (is_type.is_dictionary(column_type) or str(column_type).endswith("_view")):
        raise UsageError(
            f"{where}: holds {str(column_type)[:64]} inside a list or struct; cast it to plain strings first"
        )
    if is_type.is_dictionary(column_type):
        return kind_of(column_type.value_type, where, depth + 1)
    for name, tests in _SIMPLE.items():
        if any(getattr(is_type, test)(column_type) for test in tests):
            return name
    if is_type.is_list(column_type) or is_type.is_large_list(column_type) or is_type.is_fixed_size_list(column_type):
        return f"list<{kind_of(column_type.value_type, where, depth + 1)}>"
    if is_type.is_struct(column_type):
        fields = [column_type.field(index) for index in range(column_type.num_fields)]
        if len({field.name for field in fields}) != len(fields):
            raise UsageError(f"{where}: two fields of a struct have one name")
        parts = sorted(f"{field.name}: {kind_of(field.type, where, depth + 1)}" for field in fields)
        return "{" + ", ".join(parts) + "}"
    raise UsageError(
        f"{where}: holds {str(column_type)[:64]}, which has no JSON form; cast it to numbers or strings first"
    )


_SIMPLE: Final = {
    "null": ("is_null",),
    "boolean": ("is_boolean",),
    "number": ("is_integer", "is_floating"),
    "string": ("is_string", "is_large_string", "is_string_view"),
    "binary": ("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary"),
}


def values_of(array: Any, needs: str, where: str) -> list[Any]:
    """The rows as Python values; for tokens an integer array each, for images that are encoded their bytes.

    `array`: rows of one column, few enough to be held as objects. Strings that are not UTF-8 are `NOT_UTF8`. Raises
    `LimitExceeded` where a few bytes stand for more values than can be held.
    """
    import pyarrow as pa

    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        return _looked_up(array, needs, where)
    if _is_view(array):
        check_size(int(_lengths(array).sum()), f"{where}: views of strings")
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        if kind_of(array.type, where) != "string":
            raise
        raw = _plain(array).cast(pa.large_binary())
        raw.validate(full=True)
        return [None if row is None else row.decode() if decodes(row) else NOT_UTF8 for row in raw.to_pylist()]
    if needs == "tokens" and not pa.types.is_null(array.type):
        return _token_rows(array)
    if needs == "image" and pa.types.is_struct(array.type):
        valid = array.is_valid().to_pylist()
        array = array.field(array.type.get_field_index("bytes"))
        return [value if there else None for value, there in zip(array.to_pylist(), valid, strict=True)]
    if _count(array) > MAX_VALUES:
        raise LimitExceeded(f"{where}: lists of more than {MAX_VALUES} values")
    return list(array.to_pylist())


def _looked_up(array: Any, needs: str, where: str) -> list[Any]:
    """Rows of a dictionary; those that point to one entry share one object, however many they are."""
    _check_dictionary(array)
    used = array.indices.drop_null().unique()
    values = values_of(array.dictionary.take(used), needs, where)
    entries = dict(zip(used.to_pylist(), values, strict=True))
    return [None if index is None else entries[index] for index in array.indices.to_pylist()]


def _check_dictionary(array: Any) -> None:
    """Indices within the dictionary, and entries within their buffer; whether these are UTF-8 is looked at later."""
    import pyarrow as pa

    array.indices.validate(full=True)
    used = array.indices.drop_null().to_numpy(zero_copy_only=False)
    if len(used) and not 0 <= int(used.min()) <= int(used.max()) < len(array.dictionary):
        raise ValueError("indices leave the dictionary")
    entries = array.dictionary
    plain = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    kind = plain.get(entries.type, entries.type)
    if kind != entries.type:
        entries = pa.Array.from_buffers(kind, len(entries), entries.buffers(), entries.null_count, entries.offset)
    entries.validate(full=True)


def _count(array: Any) -> int:
    """Values in the array and in all lists and structs within: nulls and empty structs take no bytes at all."""
    import pyarrow.types as is_type

    if is_type.is_struct(array.type):
        return len(array) + sum(_count(part) for part in array.flatten())
    if is_type.is_list(array.type) or is_type.is_large_list(array.type):
        ends = array.offsets
        inner = array.values.slice(ends[0].as_py(), ends[-1].as_py() - ends[0].as_py()) if len(ends) else array.values
        return len(array) + _count(inner)
    if is_type.is_fixed_size_list(array.type):
        size = array.type.list_size
        return len(array) + _count(array.values.slice(array.offset * size, len(array) * size))
    return len(array)


def _token_rows(array: Any) -> list[NDArray[Any] | None]:
    """One integer array per row. A null inside a row makes the row None, so that it is refused as a missing one is."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.large_list(array.type.value_type))
    flat = array.values
    if pa.types.is_null(flat.type):
        # of such lists only the empty ones are tokens
        return [np.empty(0, np.int64) if size == 0 else None for size in array.value_lengths().to_pylist()]
    if not pa.types.is_integer(flat.type):
        raise UsageError(f"tokens are integers, the column holds lists of {flat.type}")
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if not len(offsets):
        return []
    flat = flat.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    holes = np.zeros(len(flat) + 1, np.int64)
    if flat.null_count:
        np.cumsum(flat.is_null().to_numpy(zero_copy_only=False), out=holes[1:])
        flat = flat.fill_null(0)
    numbers, offsets = flat.to_numpy(zero_copy_only=False), offsets - offsets[0]
    return [
        numbers[start:end] if there and holes[end] == holes[start] else None
        for start, end, there in zip(offsets[:-1], offsets[1:], valid, strict=True)
    ]


def string_slices(array: Any, most_rows: int, most_bytes: int) -> Iterator[tuple[int, Any]]:
    """(first row, slice as strings or binary) of at most that many rows and, but for longer strings, bytes.

    A dictionary is decoded slice by slice: many rows may point to one long entry.
    """
    import numpy as np

    array.validate()
    if _has_offsets(array) and not array.null_count and 0 < len(array) <= most_rows:
        ends = _offsets(array)
        if bool(np.any(ends[1:] < ends[:-1])):  # pyarrow would follow them out of the buffer, and crash
            raise ValueError("offsets descend")
        if ends[-1] - ends[0] <= most_bytes:  # the usual small batch
            yield 0, array
            return
    for block in range(0, len(array), most_rows):
        rows = array.slice(block, most_rows)
        ends = _lengths(rows).cumsum()
        start, done = 0, 0
        while start < len(ends):
            stop = max(start + 1, int(np.searchsorted(ends, done + most_bytes, side="right")))
            yield block + start, _plain(rows.slice(start, stop - start))
            start, done = stop, int(ends[stop - 1])


def _lengths(array: Any) -> NDArray[Any]:
    """Bytes of each string, int64; 0 for nulls; without decoding a dictionary."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.int64)
    if pa.types.is_dictionary(array.type):
        _check_dictionary(array)
        sizes = _lengths(array.dictionary)
        indices = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return sizes[indices] if len(sizes) else np.zeros(len(array), np.int64)
    if _is_view(array):
        _checked_views(array)
        words = np.frombuffer(array.buffers()[1], "<i4")[4 * array.offset : 4 * (array.offset + len(array)) : 4]
        return np.where(array.is_valid().to_numpy(zero_copy_only=False), words.astype(np.int64), 0)
    lengths = _numbers(pc.binary_length(array))
    if len(lengths) and int(lengths.min()) < 0:
        raise ValueError("offsets descend")
    return lengths


def _numbers(array: Any) -> NDArray[Any]:
    import numpy as np

    return np.asarray((array.fill_null(0) if array.null_count else array).to_numpy(zero_copy_only=False), np.int64)


def _plain(array: Any) -> Any:
    """The slice as an array of variable-size strings or binary."""
    import pyarrow as pa

    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.large_binary())
    if pa.types.is_fixed_size_binary(array.type):
        return array.cast(pa.large_binary())
    return _checked_views(array).cast(pa.large_binary()) if _is_view(array) else array


def _is_view(array: Any) -> bool:
    return str(array.type).endswith("_view")


def _checked_views(array: Any) -> Any:
    """Views as views of bytes, every one within its buffer; whether they are UTF-8 is looked at later."""
    import pyarrow as pa

    buffers = array.buffers()
    views = pa.Array.from_buffers(pa.binary_view(), len(array), buffers, array.null_count, array.offset)
    views.validate(full=True)
    return views


def is_utf8(array: Any) -> bool:
    """Whether every string of the slice is UTF-8 and lies within the buffers."""
    import pyarrow as pa

    kinds = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string()}
    if array.type in kinds:  # the same buffers, read as strings
        array = pa.Array.from_buffers(kinds[array.type], len(array), array.buffers(), offset=array.offset)
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def spans_of(array: Any) -> Spans:
    """Spans over the array's own buffers; its offsets are copied, so that a map that changes cannot move them.

    `array`: strings or binary without nulls. Raises `ValueError` where the offsets leave the data.
    """
    import numpy as np

    from pot.commitments.spans import Spans

    if not len(array):
        return Spans(np.empty(0, np.uint8), np.zeros(1, np.int64))
    data = array.buffers()[2]
    ends = _offsets(array).astype(np.int64)
    body = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    if ends[0] < 0 or ends[-1] > len(body) or bool(np.any(ends[1:] < ends[:-1])):
        raise ValueError("offsets leave the column's data")
    return Spans(body, ends)


def _has_offsets(array: Any) -> bool:
    import pyarrow as pa

    return array.type in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())


def _offsets(array: Any) -> NDArray[Any]:
    """The offsets of an array of strings or binary that is not empty, as they stand in its buffer."""
    import numpy as np

    kind = np.dtype(np.int64 if str(array.type).startswith("large") else np.int32)
    return np.frombuffer(array.buffers()[1], kind, len(array) + 1, array.offset * kind.itemsize)


def start_of(array: Any) -> int:
    """The memory address where the array's data begins."""
    data = array.buffers()[-1]
    return 0 if data is None else int(data.address)


def reached_by(batch: Any, rows: int) -> int:
    """About the memory address up to which a batch's last column was read after so many of its rows."""
    data = batch.column(batch.num_columns - 1).buffers()[-1]
    return 0 if data is None else int(data.address + data.size * rows // max(1, batch.num_rows))


def decodes(data: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
