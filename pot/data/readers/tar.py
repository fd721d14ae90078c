"""Members of a tar archive, read in one pass without `tarfile`.

Spec: `specs/containers.md`, "webdataset"; the format is POSIX.1-2017 pax (ustar headers) with GNU long names. Only
regular files and folders are taken; everything else, and every second way to say a thing, is refused.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from pot.commitments.model import MAX_PATH_BYTES
from pot.data.readers.record import record_cap
from pot.data.readers.source import Source, pass_over, take
from pot.errors import LimitExceeded, Malformed

__all__ = ["BLOCK", "members"]

BLOCK: Final = 512
MAX_EXTRA: Final = 1 << 16  # bytes of a long name or of pax records; names are at most MAX_PATH_BYTES anyway

_OCTAL = re.compile(rb"[ \0]*([0-7]{1,12})[ \0]*")
_PAX = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]{1,256})=")
_PASSED_OVER = frozenset(
    {"atime", "mtime", "ctime", "uid", "gid", "uname", "gname", "comment", "charset", "hdrcharset"}
)


def members(source: Source) -> Iterator[tuple[str, bytes | int]]:
    """(name, content) of every regular file, in order; the size instead of a content over the cap of records.

    Raises `Malformed` naming file and offset where the archive is cut short, or holds a link, a device, a sparse file,
    a size or name that is not plain, or bytes after its end.
    """
    stream, at = source.stream(), 0
    extra: dict[str, bytes] = {}
    while True:
        where = f"{source.path} byte {at}"
        header = stream.read(BLOCK)
        if len(header) < BLOCK:
            raise Malformed(f"{where}: the archive is cut short; it has no end marker of two empty blocks")
        if not header.strip(b"\0"):
            _check_end(stream, at, source)
            if extra:
                raise Malformed(f"{where}: a long name or extended header that belongs to no member")
            return
        kind, size = header[156:157], _checked(header, extra, where)
        at += BLOCK + -(-size // BLOCK) * BLOCK
        if at > source.size:
            raise Malformed(f"{where}: a member of {size} bytes is cut short")
        if kind in (b"L", b"x", b"g"):
            if size > MAX_EXTRA:
                raise LimitExceeded(f"{where}: an extended header of more than {MAX_EXTRA} bytes")
            _extend(extra, kind, take(stream, size, where), where)
        else:
            name = _name(header, extra, where)
            extra = {}
            if size > record_cap():
                pass_over(stream, size, where)
            content = take(stream, size, where) if size <= record_cap() else size
            if kind != b"5":
                yield name, content
        pass_over(stream, -size % BLOCK, where)


def _checked(header: bytes, extra: dict[str, bytes], where: str) -> int:
    """The member's size, after its checksum, kind and size were checked."""
    if header[257:262] != b"ustar":
        raise Malformed(f"{where}: no tar header (only ustar, pax and GNU archives are read)")
    if _number(header[148:156], where) != _sum(header) - _sum(header[148:156]) + 8 * 32:
        raise Malformed(f"{where}: the header's checksum does not fit")
    kind = header[156:157]
    if kind not in (b"0", b"\0", b"5", b"L", b"x", b"g"):
        names = {b"1": "a hard link", b"2": "a symbolic link", b"S": "a sparse file", b"K": "a link's long name"}
        raise Malformed(f"{where}: {names.get(kind, 'neither a file nor a folder')}; only plain files are read")
    if "size" in extra and kind not in (b"L", b"x", b"g"):
        digits = extra["size"]
        if not re.fullmatch(rb"[0-9]{1,18}", digits):
            raise Malformed(f"{where}: pax size {digits[:32]!r} is no number")
        return int(digits)
    size = _number(header[124:136], where)
    if kind == b"5" and size:
        raise Malformed(f"{where}: a folder with content")
    return size


def _sum(data: bytes) -> int:
    # Adler-32's low half is 1 plus the sum of the bytes mod 65521, which 256 bytes cannot reach; ten times as fast
    return sum((zlib.adler32(data[start : start + 256]) & 0xFFFF) - 1 for start in range(0, len(data), 256))


def _number(field: bytes, where: str) -> int:
    if field[0] == 0x80:  # GNU's base 256, for sizes from 8 GiB on
        return int.from_bytes(field[1:], "big")
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise Malformed(f"{where}: {field!r} is no octal number")
    return int(found.group(1), 8)


def _extend(extra: dict[str, bytes], kind: bytes, content: bytes, where: str) -> None:
    records = {"path": content.rstrip(b"\0")} if kind == b"L" else _pax(content, where)
    for name, value in records.items():
        if name not in ("path", "size") or kind == b"g":
            if name not in _PASSED_OVER and not name.startswith(("LIBARCHIVE.", "SCHILY.")):
                raise Malformed(f"{where}: extended header {name[:64]!r} changes what the member is, or how it is read")
        elif name in extra:
            raise Malformed(f"{where}: two extended headers give the same member a {name}")
        else:
            extra[name] = value


def _pax(content: bytes, where: str) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    at = 0
    while at < len(content):
        found = _PAX.match(content, at)
        end = at + int(found.group(1)) if found else 0
        if found is None or not found.end() < end <= len(content) or content[end - 1] != 0x0A:
            raise Malformed(f"{where}: the extended header's records are broken")
        name = found.group(2).decode("ascii", "replace")
        if name in records:
            raise Malformed(f"{where}: extended header {name[:64]!r} twice")
        records[name] = content[found.end() : end - 1]
        at = end
    return records


def _name(header: bytes, extra: dict[str, bytes], where: str) -> str:
    if "path" in extra:
        raw = extra["path"]
    else:
        raw = header[:100].split(b"\0")[0]
        # POSIX's prefix; GNU archives ("ustar  ") keep times there
        prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
        raw = prefix + b"/" + raw if prefix else raw
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(f"{where}: a member's name is not UTF-8") from None
    if not 0 < len(raw) <= MAX_PATH_BYTES:
        raise LimitExceeded(f"{where}: a member's name of {len(raw)} bytes; 1 to {MAX_PATH_BYTES} are allowed")
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    if "\\" in name or any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in name):
        raise Malformed(f"{where}: member {name[:64]!r}: its name holds a backslash, control or invisible character")
    return name


def _check_end(stream: BinaryIO, at: int, source: Source) -> None:
    """Two empty blocks, and nothing but zeros after them: what follows would be read by some and not by others."""
    if source.size - at < 2 * BLOCK:
        raise Malformed(f"{source.path} byte {at}: the archive is cut short; its end marker is two empty blocks")
    while part := stream.read(1 << 20):
        if part.count(0) != len(part):
            raise Malformed(f"{source.path} byte {at}: bytes follow the archive's end marker")
