"""Canonical JSON and domain-separated digests: the bytes that everything else hashes and signs.

Writing follows RFC 8785 (JSON Canonicalization Scheme). Reading is strict: duplicate keys, NaN and Infinity, lone
surrogates, integers beyond 2^53, depth over `MAX_DEPTH` and sizes over the caller's cap are refused, because a
parser that forgives lets two readers see two documents in the same signed bytes.

Does not define: which fields a document has (see the models in each package).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, Self, get_args

import rfc8785
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pot.errors import EnvironmentFailure, LimitExceeded, Malformed, UsageError

__all__ = [
    "MAX_DEPTH",
    "MAX_DOCUMENT_BYTES",
    "MAX_INTEGER",
    "MAX_LINE_BYTES",
    "Count",
    "Decimal",
    "Document",
    "Hex32",
    "canonical_bytes",
    "check_target",
    "derive",
    "parse",
    "parse_canonical",
    "read_file",
    "sha256_hex",
    "write_file",
]

MAX_DEPTH: Final = 32  # deeper than any of our formats by a factor of four; stops stack exhaustion
MAX_INTEGER: Final = 2**53  # RFC 8785 3.2.2.3: beyond it, readers that use doubles see another number
MAX_LINE_BYTES: Final = 1 << 20  # one line of claims.jsonl or transcript.jsonl
MAX_DOCUMENT_BYTES: Final = 16 << 20  # one JSON document: commitment, set proof header, report

_CHUNK: Final = 1 << 20

Hex32 = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
"""A 32-byte digest, lowercase hex; the field's name carries the algorithm."""

Count = Annotated[str, StringConstraints(pattern=r"\A(0|[1-9][0-9]{0,18})\z")]
"""A quantity that matters, as a decimal string below 10^19 (RFC 8785 numbers are doubles)."""

Decimal = Annotated[str, StringConstraints(pattern=r"\A-?(0|[1-9][0-9]*)(\.[0-9]+)?(e-?[0-9]{1,3})?\z")]
"""A real number as the shortest decimal string that reads back to the same double (Python's `repr`)."""


_VERSION: Final = re.compile(r"[!-~]{1,64}")  # what stands in an error is the sender's, so nothing long or invisible
_TOLD: Final = {"missing": " is missing", "string_pattern_mismatch": " has not the form that its specification demands"}


class Document(BaseModel):
    """A strict, frozen record of one of our formats: unknown fields and coercions are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def to_bytes(self) -> bytes:
        """The canonical bytes. Absent optional fields are left out, never written as null."""
        return canonical_bytes(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    def sha256(self) -> str:
        """SHA-256 of the canonical bytes, hex: the document's address among the objects of a release bundle."""
        return sha256_hex(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes, *, what: str, limit: int = MAX_DOCUMENT_BYTES) -> Self:
        """Read canonical bytes. `what` names the source in errors. Raises `Malformed`."""
        document = cls.from_value(parse_canonical(data, what=what, limit=limit), what=what)
        if document.to_bytes() != data:  # an explicit null would be a second spelling of the same document
            raise Malformed(f"{what}: fields that are absent must be left out, not written as null")
        return document

    @classmethod
    def from_value(cls, value: Any, *, what: str) -> Self:
        """Validate a parsed JSON value. Raises `Malformed` naming the first field that is wrong."""
        try:
            # strict JSON mode: the value came from JSON, so tuples arrive as lists
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            cls._refuse_another_version(value, what)
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            # a name in it may be the document's own, and as long as the document
            where = ".".join(str(part) for part in first["loc"])[:128] or "(document)"
            raise Malformed(f"{what}: field {where}{_TOLD.get(first['type'], ': ' + first['msg'])}") from None

    @classmethod
    def _refuse_another_version(cls, value: Any, what: str) -> None:
        """The first thing to know about a document of another kind, whatever else its fields are."""
        known = get_args(cls.model_fields["version"].annotation) if "version" in cls.model_fields else ()
        found = value.get("version") if isinstance(value, dict) else None
        if known and isinstance(found, str) and found not in known and _VERSION.fullmatch(found):
            raise Malformed(f"{what}: is {found}, {' or '.join(map(str, known))} is expected") from None


def canonical_bytes(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value. Raises `Malformed` for values that RFC 8785 cannot write."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise Malformed(f"value has no canonical JSON form: {error}") from None


def parse(data: bytes, *, what: str, limit: int = MAX_DOCUMENT_BYTES) -> Any:
    """Parse JSON strictly. `what` names the source in errors. Raises `Malformed` or `LimitExceeded`."""
    if len(data) > limit:
        raise LimitExceeded(f"{what}: {len(data)} bytes, more than the limit of {limit}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{what}: not UTF-8 at byte {error.start}") from None
    _check_depth(text, what)
    try:
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _object(pairs, what),
            parse_constant=lambda name: _refuse(f"{what}: {name} is not JSON"),
            parse_int=lambda digits: _integer(digits, what),
            parse_float=lambda digits: _real(digits, what),
        )
    except (json.JSONDecodeError, RecursionError) as error:
        at = f" at line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Malformed(f"{what}: not JSON{at}") from None
    _check_strings(value, what)
    return value


def parse_canonical(data: bytes, *, what: str, limit: int = MAX_DOCUMENT_BYTES) -> Any:
    """Parse JSON that must already be in RFC 8785 form, byte for byte. Raises `Malformed`."""
    value = parse(data, what=what, limit=limit)
    if canonical_bytes(value) != data:
        raise Malformed(f"{what}: not in canonical form (RFC 8785)")
    return value


def _refuse(sentence: str) -> NoReturn:
    raise Malformed(sentence)


def _object(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Malformed(f"{what}: duplicate key {key[:64]!r}")
            seen.add(key)
    return result


def _integer(digits: str, what: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > MAX_INTEGER:
        raise Malformed(f"{what}: integer beyond 2^53; quantities are decimal strings")
    return int(digits)


def _real(digits: str, what: str) -> float:
    value = float(digits)
    if not math.isfinite(value):  # 1e999 is JSON, but no reader with doubles can keep it
        raise Malformed(f"{what}: number beyond the range of doubles")
    return value


def _check_depth(text: str, what: str) -> None:
    """Refuse deep nesting before the recursive parser sees it."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # most records: so few cannot nest deeper
        return
    depth = 0
    # possessive and with an optional end: an unterminated string is passed over once, not once for each quote in it
    for mark in re.finditer(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', text, re.DOTALL):
        first = mark.group()[0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise LimitExceeded(f"{what}: nested deeper than {MAX_DEPTH}")
        elif first in "]}":
            depth -= 1


def _check_strings(value: Any, what: str) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Malformed(f"{what}: lone surrogate in a string") from None
    elif isinstance(value, list):
        for item in value:
            _check_strings(item, what)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key, what)
            _check_strings(item, what)


def sha256_hex(data: bytes) -> str:
    """SHA-256, lowercase hex."""
    return hashlib.sha256(data).hexdigest()


def derive(context: str, *parts: bytes) -> bytes:
    """BLAKE3 in key-derivation mode (BLAKE3 paper 2.3, mode `derive_key`) over length-prefixed parts; 32 bytes.

    `context` is a versioned constant such as "pot/state/v1"; each part is prefixed with its length as 8 bytes,
    little endian, so that no two sequences of parts give the same input.
    """
    hasher = blake3(derive_key_context=context)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


def read_file(path: Path, *, limit: int, what: str | None = None) -> bytes:
    """Read a regular file of at most `limit` bytes; symbolic links are refused.

    Raises `UsageError` (absent, not a regular file), `LimitExceeded`, `EnvironmentFailure` (I/O).
    """
    name = what or str(path)
    try:
        if path.is_symlink():
            raise UsageError(f"{name}: is a symbolic link; give the file itself")
        if path.is_dir():
            raise UsageError(f"{name}: is a folder, a file is expected")
        if not path.exists():
            raise UsageError(f"{name}: no such file")
        if not path.is_file():
            raise UsageError(f"{name}: not a regular file")
        with open(path, "rb", opener=_open_at_once) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{name}: not a regular file")
            if status.st_size > limit:
                raise LimitExceeded(f"{name}: more than the limit of {limit} bytes")
            data = stream.read(status.st_size + 1)
            while len(data) <= limit and (more := stream.read(_CHUNK)):  # it grows, or the system said 0, as of /proc
                data += more
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EnvironmentFailure(f"{name}: cannot be read: {reason}") from None
    if len(data) > limit:
        raise LimitExceeded(f"{name}: more than the limit of {limit} bytes")
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a pipe's other end and without following a link, should the file have become one."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def check_target(path: Path) -> None:
    """Refuse a path that a file cannot be renamed to without taking something else away: a link, a folder, a device.

    Raises `UsageError`.
    """
    if not path.name:
        raise UsageError(f"{path}: is a folder; name a file to be written")
    if path.is_symlink():
        raise UsageError(f"{path}: is a symbolic link; name the file itself")
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise UsageError(f"{path}: is {what}; name a file to be written")


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write atomically: a temporary file beside `path`, fsync, rename.

    Raises `UsageError` where a folder, a link, a device or a pipe has that name, `EnvironmentFailure` (I/O).
    """
    try:
        check_target(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EnvironmentFailure(f"{path}: cannot be written: {reason}") from None
