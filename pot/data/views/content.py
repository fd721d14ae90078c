"""What a view takes from one record, before anything is done to a whole batch: text, tokens, an object, a file's bytes.

Spec: `specs/views/text-1.md`, `tokens-1.md`, `json-1.md`, `file-1.md`. Values come from other people's files: each is
checked before it is used.

Shows / does not show: nothing by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pot.canonical import canonical_bytes
from pot.errors import Malformed, UsageError

if TYPE_CHECKING:
    from pot.data.readers.record import Record

__all__ = ["field_of", "file_bytes", "json_bytes", "text_bytes", "token_bytes"]

_MOST: Final = 2**32 - 1


def field_of(record: Record, name: str) -> Any:
    """A record's field; None where it is missing. Raises `UsageError` for a plain file."""
    return _object(record).get(name)


def text_bytes(record: Record) -> bytes:
    """The field `text`, or a plain file's bytes, UTF-8, unchanged: a byte-order mark stays. Raises `Malformed`."""
    try:
        if record.value is None:
            record.data.decode()
            return record.data
        text = record.value.get("text")
        if not isinstance(text, str):
            raise Malformed(f"{record.where}: a text view needs a field 'text', a string")
        return text.encode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{record.where}: not UTF-8 at byte {error.start}; a text view needs text") from None
    except UnicodeEncodeError as error:
        raise Malformed(f"{record.where}: 'text' has a lone surrogate at character {error.start}") from None


def token_bytes(record: Record) -> bytes:
    """The field `tokens`, each as u32 little endian. Raises `Malformed`, `UsageError`."""
    tokens = field_of(record, "tokens")
    if isinstance(tokens, list):
        # a boolean is an integer to NumPy, and not to JSON: hence the type test
        if not set(map(type, tokens)) <= {int}:
            raise Malformed(f"{record.where}: 'tokens' holds something that is not an integer")
        if tokens and not (min(tokens) >= 0 and max(tokens) <= _MOST):
            raise Malformed(f"{record.where}: 'tokens' holds a value outside 0 to {_MOST}")
        return np.array(tokens, "<u4").tobytes()
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise Malformed(f"{record.where}: a token view needs a field 'tokens', a list of integers")
    if len(tokens) and not (int(tokens.min()) >= 0 and int(tokens.max()) <= _MOST):
        raise Malformed(f"{record.where}: 'tokens' holds a value outside 0 to {_MOST}")
    return tokens.astype("<u4").tobytes()


def json_bytes(record: Record) -> bytes:
    """The whole object in RFC 8785 form; arrays of integers are lists. Raises `Malformed`, `UsageError`."""
    fields = _object(record)
    plain = {name: _listed(value, record.where, name) for name, value in fields.items()}
    try:
        return canonical_bytes(plain)
    except Malformed as error:
        raise Malformed(f"{record.where}: {error}") from None


def _listed(value: Any, where: str, name: str) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        return value.tolist()
    if isinstance(value, dict):
        return {key: _listed(item, where, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_listed(item, where, name) for item in value]
    if isinstance(value, (bytes, np.ndarray)):
        kind = "bytes" if isinstance(value, bytes) else f"an array of {value.dtype}"
        raise Malformed(f"{where}: field {name[:64]!r} holds {kind}, which JSON cannot say; choose another view")
    return value


def file_bytes(record: Record) -> bytes:
    """A plain file's bytes, or the field `bytes`, unchanged. Raises `Malformed`."""
    if record.value is None:
        return record.data
    data = record.value.get("bytes")
    if not isinstance(data, bytes):
        raise Malformed(f"{record.where}: view file/1 needs a plain file, or a field 'bytes' that holds bytes")
    return data


def _object(record: Record) -> dict[str, Any]:
    if record.value is None:
        raise UsageError(f"{record.where}: is a plain file; this view needs JSON records (.jsonl)")
    return record.value
