"""A record, the limits on records, and what of a record a view sees.

Spec: `specs/containers.md`, "Records". A record has no memory of the container that it came from: the same fields with
the same values are the same record.

Shows / does not show: nothing by itself; views (`pot.data.views`) turn records into the bytes that are committed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pot.canonical import MAX_DEPTH, MAX_INTEGER
from pot.errors import LimitExceeded, Malformed, UsageError

__all__ = ["MAX_RECORD_BYTES", "NEEDS", "Record", "check_size", "json_value", "record_cap", "seen_by", "wanted_names"]

MAX_RECORD_BYTES: Final = 256 << 20  # one record is held in memory whole
NEEDS: Final = ("text", "tokens", "image", "object", "bytes")  # what a view can need of a record


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    `where`: path and place, for messages. `data`: the stored bytes where the container keeps a record as one byte
    string (a line, a plain file), else empty. `value`: field name -> JSON value, bytes or NumPy array (uint8 image of
    shape (H, W) or (H, W, C); integer tokens of shape (n,)); None for plain files.
    """

    where: str
    data: bytes
    value: dict[str, Any] | None


def record_cap() -> int:
    """The most bytes that one record may have."""
    return MAX_RECORD_BYTES


def check_size(size: int, where: str) -> None:
    """Refuse a record over the cap, before it is read. Raises `LimitExceeded`."""
    if size > MAX_RECORD_BYTES:
        raise LimitExceeded(f"{where}: more than the limit of {MAX_RECORD_BYTES} bytes for one record")


def wanted_names(needs: str, fields: Mapping[str, str]) -> dict[str, str]:
    """Record field -> the container's name for it; empty for "object", which takes every field by its own name.

    Raises `UsageError` for an unknown need, or where "object" is asked for with other names.
    """
    if needs not in NEEDS:
        raise UsageError(f"a view cannot need {needs[:64]!r} of a record; possible are {', '.join(NEEDS)}")
    if needs == "object":
        if fields:
            raise UsageError("a view of the whole record takes its fields by their own names; leave the renaming out")
        return {}
    return {needs: fields.get(needs, needs), **{name: fields[name] for name in fields if name != needs}}


def seen_by(wanted: Mapping[str, str], value: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields that `wanted` names (all, if it names none). Raises `Malformed` where one is missing."""
    if not wanted:
        return value
    for name, stored in wanted.items():
        if stored not in value:
            raise Malformed(
                f"{where}: no field {stored[:64]!r}, which is needed as the record's {name}; if it has another name,"
                f" give --field {name}=NAME"
            )
    return {name: value[stored] for name, stored in wanted.items()}


def json_value(value: Any, where: str, depth: int = 0) -> Any:
    """`value` if JSON can say it (bytes and arrays inside pass: the view refuses or lists them).

    Raises `Malformed` for integers beyond 2^53, NaN, infinity, lone surrogates, keys that are no strings, other types.
    """
    if depth > MAX_DEPTH:
        raise LimitExceeded(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise Malformed(f"{where}: lone surrogate in a string")
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise Malformed(f"{where}: integer beyond 2^53; quantities are decimal strings")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Malformed(f"{where}: NaN or infinity, which JSON cannot say")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Malformed(f"{where}: a key that is no string")
            json_value(key, where)
            json_value(item, f"{where}, field {key[:64]!r}" if depth == 0 else where, depth + 1)
    elif isinstance(value, list):
        for item in value:
            json_value(item, where, depth + 1)
    elif not isinstance(value, bytes) and type(value).__name__ != "ndarray":
        raise Malformed(f"{where}: holds a {type(value).__name__}, which has no JSON form")
    return value
