"""The content digest of a batch that an iterable dataset yielded, where no record numbers exist to commit to.

Spec: `specs/transcript.md`, "Streams". A batch is any nesting of lists, tuples and dictionaries over tensors, NumPy
arrays, bytes, text, numbers and nothing; each part is hashed with its kind, so that no two batches look alike.

Shows: two batches with one digest are equal in every value. Does not show: which committed records they came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pot.canonical import derive
from pot.errors import UsageError

__all__ = ["CONTENT_CONTEXT", "content_digest", "count_records"]

CONTENT_CONTEXT: Final = "pot/batch-content/v1"
_MAX_DEPTH: Final = 32


def content_digest(batch: Any) -> str:
    """The digest (hex) of a batch. Raises `UsageError` for a value that has no form."""
    return derive(CONTENT_CONTEXT, *_parts(batch, 0)).hex()


def count_records(batch: Any, limit: int) -> int:
    """Records in a batch: the first extent of its first tensor or array, else the length of its first list.

    Raises `UsageError` for a batch without either, or with more than `limit` records.
    """
    count = _count(batch)
    if count is None or not 1 <= count <= limit:
        raise UsageError(
            f"record: the stream yielded a batch of {'unknown size' if count is None else count}, 1 to {limit} records"
            " (the committed batch size) are possible"
        )
    return count


def _count(value: Any) -> int | None:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    if isinstance(value, Mapping):
        return next((found for item in value.values() if (found := _count(item)) is not None), None)
    if isinstance(value, (list, tuple)):
        inner = [_count(item) for item in value]
        found = next((item for item in inner if item is not None), None)
        return found if found is not None else len(value)
    return None


def _parts(value: Any, depth: int) -> Iterator[bytes]:
    if depth > _MAX_DEPTH:
        raise UsageError(f"record: the stream yielded a batch nested deeper than {_MAX_DEPTH}")
    if value is None or isinstance(value, (bool, int, float)):
        yield from (type(value).__name__.encode(), repr(value).encode())
    elif isinstance(value, str):
        yield from (b"text", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        yield from (b"bytes", bytes(value))
    elif isinstance(value, Mapping):
        yield from (b"map", len(value).to_bytes(8, "little"))
        for key in sorted(value, key=str):
            yield str(key).encode("utf-8", "surrogatepass")
            yield from _parts(value[key], depth + 1)
    elif isinstance(value, (list, tuple)):
        yield from (b"list", len(value).to_bytes(8, "little"))
        for item in value:
            yield from _parts(item, depth + 1)
    else:
        yield from _array_parts(value)


def _array_parts(value: Any) -> Iterator[bytes]:
    """A tensor or array: dtype, shape, elements in row order."""
    if hasattr(value, "detach"):
        from pot.recording.pytorch.tensors import entry

        item = entry("batch", value)
        dtype, shape, data = item.dtype, item.shape, bytes(item.data)
    elif hasattr(value, "tobytes") and hasattr(value, "dtype") and not value.dtype.hasobject:
        dtype, shape, data = value.dtype.newbyteorder("<").str, tuple(value.shape), value.tobytes()
    else:
        raise UsageError(f"record: the stream yielded a {type(value).__name__}, which has no committed form")
    yield from (b"tensor", dtype.encode(), b"".join(int(extent).to_bytes(8, "little") for extent in shape), data)
