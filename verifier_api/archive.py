"""Unpack an uploaded release bundle: a tar, plain or gzip, from somebody who may mean harm.

Reads the POSIX ustar format (IEEE Std 1003.1, `pax`, "ustar Interchange Format") with pax `path` and `size` records
and GNU long names, in one pass. Everything else is refused: links, devices, sparse files, absolute paths, `..`, a
path given twice, bytes after the end. The decompressed bytes are counted as they come out, so that a gzip bomb stops
at the cap instead of filling the disk. Nothing is taken from a header but name, kind and size: no owner, no mode, no
date.

Does not define: what a release bundle must hold (`attest.bundle`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pot.errors import EnvironmentFailure, LimitExceeded, Malformed

__all__ = ["MAX_EXTENDED_HEADER", "MAX_MEMBERS", "MAX_PATH_BYTES", "release_folder", "unpack"]

MAX_MEMBERS: Final = 16_384  # a model's files and its objects, four times what a verifier would read
MAX_PATH_BYTES: Final = 512  # the cap on paths of all our formats
MAX_EXTENDED_HEADER: Final = 64 << 10  # one pax header: a path, a size, and what some archivers add about owners
_MAX_NAME_BYTES: Final = 255  # what file systems take
_BLOCK: Final = 512
_CHUNK: Final = 1 << 20
_FILE_KINDS: Final = (b"0", b"\0")
_FOLDER_KIND: Final = b"5"
_PAX_KIND: Final = b"x"
_PAX_GLOBAL_KIND: Final = b"g"
_GNU_LONG_NAME_KIND: Final = b"L"
_REFUSED_KINDS: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"K": "a link",
    b"S": "a sparse file",
}


@dataclass(frozen=True)
class _Member:
    path: tuple[str, ...]  # empty for the archive's own root, "./"
    folder: bool
    size: int


class _Source:
    """The decompressed bytes of an archive, at most `limit` of them."""

    def __init__(self, stream: BinaryIO, compressed: bool, limit: int) -> None:
        self._chunks = _inflate(stream) if compressed else iter(lambda: stream.read(_CHUNK), b"")
        self._buffer = b""
        self._limit = limit
        self._count = 0

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, at most one chunk. Raises `Malformed` where the archive ends before."""
        parts, missing = [self._buffer[:size]], size - len(self._buffer)
        self._buffer = self._buffer[size:]
        while missing > 0:
            chunk = next(self._chunks, b"")
            if not chunk:
                raise Malformed("the archive ends in the middle; send it whole")
            self._count += len(chunk)
            if self._count > self._limit:
                raise LimitExceeded(f"the archive holds more than the limit of {self._limit} bytes")
            parts.append(chunk[:missing])
            self._buffer = chunk[missing:]
            missing -= len(chunk)
        return b"".join(parts)

    def only_zeros_left(self) -> bool:
        """Whether nothing but padding follows. Reads to the end, within the limit."""
        while not self._buffer.strip(b"\0"):
            self._buffer = next(self._chunks, b"")
            if not self._buffer:
                return True
            self._count += len(self._buffer)
            if self._count > self._limit:
                raise LimitExceeded(f"the archive holds more than the limit of {self._limit} bytes")
        return False


def unpack(archive: Path, into: Path, *, compressed: bool, limit: int) -> Path:
    """Unpack `archive` into the empty folder `into` and return the folder of the release bundle in it.

    `compressed`: the archive is gzip (RFC 1952). `limit`: bytes of all files together; headers have a cap of their own.
    Raises `Malformed`, `LimitExceeded`, `EnvironmentFailure`.
    """
    overhead = (MAX_MEMBERS + 1) * 4 * _BLOCK + MAX_EXTENDED_HEADER
    try:
        with archive.open("rb") as stream:
            source = _Source(stream, compressed, limit + overhead)
            left = limit
            seen: set[tuple[str, ...]] = set()
            for member in _members(source):
                left -= member.size
                if left < 0:
                    raise LimitExceeded(f"the files in the archive have more than the limit of {limit} bytes")
                _place(member, into, source, seen)
    except OSError as error:
        raise EnvironmentFailure(f"the archive could not be unpacked: {error.strerror or error}") from None
    return release_folder(into)


def release_folder(root: Path) -> Path:
    """The release bundle in an unpacked archive: its only top folder, or the archive's root where files lie in it."""
    entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    if len(entries) == 1 and entries[0].is_dir(follow_symlinks=False) and entries[0].name != ".pot":
        return Path(entries[0].path)
    return root


def _place(member: _Member, into: Path, source: _Source, seen: set[tuple[str, ...]]) -> None:
    target = into.joinpath(*member.path)
    shown = "/".join(member.path)
    try:
        if member.folder:
            target.mkdir(parents=True, exist_ok=True)
            return
        if member.path in seen:
            raise Malformed(f"{shown}: is in the archive twice")
        seen.add(member.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            for start in range(0, member.size, _CHUNK):
                out.write(source.take(min(_CHUNK, member.size - start)))
    except (FileExistsError, NotADirectoryError):
        raise Malformed(f"{shown}: is in the archive as a file and as a folder") from None
    if any(source.take(-member.size % _BLOCK)):
        raise Malformed(f"{shown}: bytes other than zero between two files of the archive")


def _members(source: _Source) -> Iterator[_Member]:
    """The members in order; the caller reads each one's bytes and padding before it asks for the next."""
    count = 0
    path: str | None = None
    size: int | None = None
    while True:
        block = source.take(_BLOCK)
        if not any(block):
            if any(source.take(_BLOCK)) or not source.only_zeros_left():
                raise Malformed("the archive has bytes after its end")
            if path is not None or size is not None:
                raise Malformed("the archive ends after an extended header")
            return
        count += 1
        if count > MAX_MEMBERS:
            raise LimitExceeded(f"the archive has more than {MAX_MEMBERS} members")
        kind, name, stated = _header(block)
        if kind in (_PAX_KIND, _PAX_GLOBAL_KIND):
            records = _pax(_extended(source, stated, MAX_EXTENDED_HEADER))
            if kind == _PAX_KIND:
                path = records.get("path", path)
                size = _decimal(records["size"]) if "size" in records else size
            elif "path" in records or "size" in records:
                raise Malformed("the archive gives one path or size to all its members")
            continue
        if kind == _GNU_LONG_NAME_KIND:
            path = _text(_extended(source, stated, MAX_PATH_BYTES + 1).rstrip(b"\0"))
            continue
        name, stated = (name if path is None else path), (stated if size is None else size)
        path = size = None
        if kind not in (*_FILE_KINDS, _FOLDER_KIND):
            what = _REFUSED_KINDS.get(kind, "of a kind that a release bundle cannot hold")
            raise Malformed(f"{name[:MAX_PATH_BYTES]}: is {what}; only files and folders are taken")
        # before POSIX, a folder was a file whose name ends in a slash
        folder = kind == _FOLDER_KIND or (name.endswith("/") and stated == 0)
        if folder and stated:
            raise Malformed(f"{name[:MAX_PATH_BYTES]}: a folder with bytes")
        parts = _path(name)
        if not folder and not parts:
            raise Malformed("a file without a name is in the archive")
        yield _Member(parts, folder, stated)


def _header(block: bytes) -> tuple[bytes, str, int]:
    """Kind, path and size of one header block."""
    stated = _octal(block[148:156], "checksum")
    if stated != sum(block[:148]) + sum(block[156:]) + 8 * 0x20:
        raise Malformed("not a tar archive, or a damaged one: the checksum of a header is wrong")
    if block[257:262] != b"ustar":
        raise Malformed("not a tar archive in ustar, pax or GNU format")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":  # in the GNU format these bytes hold dates
        prefix = block[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return block[156:157], _text(name), _octal(block[124:136], "size")


def _octal(digits: bytes, what: str) -> int:
    stripped = digits.strip(b" \0")
    if not stripped or stripped.strip(b"01234567"):
        raise Malformed(f"the {what} in a header of the archive is not octal")
    return int(stripped, 8)


def _decimal(digits: str) -> int:
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise Malformed("a size in an extended header of the archive is not a number")
    return int(digits)


def _extended(source: _Source, size: int, cap: int) -> bytes:
    if size > cap:
        raise LimitExceeded(f"an extended header of the archive has {size} bytes, more than the limit of {cap}")
    return source.take(size + -size % _BLOCK)[:size]


def _pax(data: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE\\n` of a pax header; values of keys that nothing here uses stay unread."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > at else b""
        length = int(digits) if digits.isdigit() else 0
        record = data[space + 1 : at + length - 1]
        if length <= len(digits) + 2 or at + length > len(data) or data[at + length - 1] != 0x0A or b"=" not in record:
            raise Malformed("an extended header of the archive is damaged")
        key, value = record.split(b"=", 1)
        if key.startswith(b"GNU.sparse"):
            raise Malformed("a sparse file is in the archive; only files and folders are taken")
        if key in (b"path", b"size"):
            if key.decode() in records:
                raise Malformed(f"an extended header of the archive gives its {key.decode()} twice")
            records[key.decode()] = _text(value)
        at += length
    return records


def _text(name: bytes) -> str:
    if len(name) > MAX_PATH_BYTES:
        raise LimitExceeded(f"a path in the archive has {len(name)} bytes, more than the limit of {MAX_PATH_BYTES}")
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("a path in the archive is not UTF-8") from None


def _path(name: str) -> tuple[str, ...]:
    """The parts of a path that stays inside. A leading `./` and a trailing `/` are what archivers write."""
    if not name or name.startswith("/") or "\\" in name or any(ord(c) < 0x20 or ord(c) == 0x7F for c in name):
        raise Malformed(f"{name!r}: not a relative path of printable characters")
    parts = name.removesuffix("/").split("/")
    while parts and parts[0] == ".":
        parts = parts[1:]
    if any(part in ("", ".", "..") for part in parts):
        raise Malformed(f"{name!r}: leads out of the archive or is not in its simplest form")
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        raise LimitExceeded(f"{name!r}: a name in it has more than {_MAX_NAME_BYTES} bytes")
    return tuple(parts)


def _inflate(stream: BinaryIO) -> Iterator[bytes]:
    """The decompressed chunks of one gzip member, each at most `_CHUNK` bytes. Raises `Malformed`."""
    engine = zlib.decompressobj(wbits=31)
    try:
        while not engine.eof:
            data = engine.unconsumed_tail or stream.read(_CHUNK)
            if not data:
                raise Malformed("the gzip data ends in the middle; send it whole")
            out = engine.decompress(data, _CHUNK)
            if out:
                yield out
    except zlib.error:
        raise Malformed("not gzip data, or damaged") from None
    if engine.unused_data or stream.read(1):
        raise Malformed("bytes after the end of the gzip data")
