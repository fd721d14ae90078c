"""An open file and the digests of the very bytes that were read from it.

Spec: `specs/containers.md`, "Files". A file is read through one descriptor, as a stream or as a memory map, and hashed
from its first to its last byte. If it changed meanwhile, what was read is not used.

Shows: the digests are those of the bytes that the records came from.
Does not show: a change that leaves size, time of change and inode as they were while a map is read twice (once for the
records, once for the digests); who can set a file's time can do that to their own data.
"""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from blake3 import blake3

from pot.errors import EnvironmentFailure, Malformed, MissingExtra, PotError, UsageError

__all__ = ["Digests", "Source", "import_pyarrow", "parsing", "pass_over", "take", "unpacked_zstd"]

_CHUNK: Final = 1 << 20  # both hashes see a chunk while it is in the cache
_RELEASE: Final = 64 << 20  # pages of a map that were hashed are given back in steps of this size


class Digests:
    """SHA-256 and BLAKE3-256 of everything they were given, and its length."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._blake3 = blake3()

    def update(self, data: Any) -> None:
        """Take in bytes, or a memoryview of them."""
        self._sha256.update(data)
        self._blake3.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        """SHA-256, hex."""
        return self._sha256.hexdigest()

    @property
    def blake3(self) -> str:
        """BLAKE3-256, hex."""
        return str(self._blake3.hexdigest())


class _Tap(io.RawIOBase):
    """Reads a descriptor and hashes what it hands on."""

    def __init__(self, handle: int, digests: Digests, path: Path) -> None:
        self._handle, self._digests, self._path = handle, digests, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = os.readv(self._handle, [buffer])
        except OSError as error:  # ours at once: a parser on top must not take it for bad bytes
            raise EnvironmentFailure(f"{self._path}: cannot be read: {error.strerror or error}") from None
        self._digests.update(memoryview(buffer)[:count])
        return count


class Source:
    """A regular file, open: `size` at that time, read by `stream` or `mapped`, hashed into `digests`.

    Raises `UsageError` for links, folders, devices; `OSError` where the system refuses (the caller names the file).
    """

    def __init__(self, path: Path, digests: Digests | None = None) -> None:
        self.path = path
        self.digests = digests if digests is not None else Digests()
        try:
            # without following a link, and without waiting on a pipe
            self._handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UsageError(f"{path}: is a symbolic link; give the file itself") from None
            raise
        found = os.fstat(self._handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(self._handle)
            raise UsageError(f"{path}: not a regular file")
        self._before = _identity(found)
        self.size = found.st_size
        self._start = self.digests.size
        self._view: memoryview | None = None
        self._map: mmap.mmap | None = None
        self._released = self._address = 0

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    @property
    def hashed(self) -> int:
        """Bytes of this file that were hashed so far."""
        return self.digests.size - self._start

    def stream(self) -> io.BufferedReader:
        """The file's bytes from its start, hashed as they are read."""
        return io.BufferedReader(_Tap(self._handle, self.digests, self.path), _CHUNK)

    def mapped(self) -> memoryview:
        """The file's bytes as a read-only map; `hash_to` and `finish` hash them."""
        if self._view is None:
            if self.size:
                self._map = mmap.mmap(self._handle, self.size, access=mmap.ACCESS_READ)
                self._view = memoryview(self._map)
                self._address = _address_of(self._view)
            else:
                self._view = memoryview(b"")
        return self._view

    def begin(self) -> None:
        """Count this file's bytes from here on: another file went into the same digests before it."""
        self._start = self.digests.size

    def duplicate(self) -> BinaryIO:
        """The file for random access, unhashed, open after this source is closed."""
        return os.fdopen(os.dup(self._handle), "rb")

    def hash_to(self, end: int) -> None:
        """Hash the map up to about byte `end`. Raises `EnvironmentFailure` if the file has become shorter."""
        view = self.mapped()
        self.check_length()
        end = self.size if end >= self.size else end // _CHUNK * _CHUNK  # small pieces would cost a call each
        while (start := self.hashed) < end:
            self.check_length()
            self.digests.update(view[start : min(start + _CHUNK, end)])
        if self._map is not None and self.hashed - self._released >= _RELEASE:
            done = self.hashed // _RELEASE * _RELEASE
            self._map.madvise(mmap.MADV_DONTNEED, self._released, done - self._released)
            self._released = done

    def hash_before(self, address: int) -> None:
        """Hash the map up to a memory address within it, as far as its user has read; other addresses do nothing."""
        if self._map is not None and 0 <= address - self._address <= self.size:
            self.hash_to(address - self._address)

    def check_length(self) -> None:
        """Raise `EnvironmentFailure` if the file is shorter than its map: touching the rest would kill the process."""
        if os.fstat(self._handle).st_size < self.size:
            raise self._changed()

    def finish(self) -> None:
        """Hash what is left. Raises `EnvironmentFailure` if the file changed since it was opened."""
        if self._view is not None:
            self.hash_to(self.size)
        else:
            while chunk := os.read(self._handle, _CHUNK):
                self.digests.update(chunk)
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            raise self._changed() from None
        if not self._before == _identity(os.fstat(self._handle)) == _identity(now) or self.hashed != self.size:
            raise self._changed()

    def _changed(self) -> EnvironmentFailure:
        return EnvironmentFailure(f"{self.path}: changed while it was read; read it again when nothing writes to it")


def _address_of(view: memoryview) -> int:
    import numpy as np

    return int(np.frombuffer(view, np.uint8).ctypes.data)


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def import_pyarrow(purpose: str) -> Any:
    """pyarrow. Raises `MissingExtra` where it is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise MissingExtra("data", purpose) from None
    return pyarrow


@contextmanager
def parsing(where: str, what: str) -> Iterator[None]:
    """Turn whatever a parser of other people's raises over bytes from outside into `Malformed` naming the place."""
    try:
        yield
    except PotError:
        raise
    except Exception as error:  # pyarrow, NumPy and Pillow raise a dozen kinds, and no list of them is promised
        lines = str(error).splitlines() or [type(error).__name__]
        reason = "".join(character if character.isprintable() else "?" for character in lines[0])[:200]
        raise Malformed(f"{where}: {what} cannot be read: {reason}") from None


def take(stream: BinaryIO, size: int, where: str) -> bytes:
    """Exactly `size` bytes. Raises `Malformed` where the stream ends before."""
    data = stream.read(size)
    if len(data) != size:
        raise Malformed(f"{where}: cut short; {size} bytes should follow, {len(data)} do")
    return data


def pass_over(stream: BinaryIO, size: int, where: str) -> None:
    """Read `size` bytes and keep none. Raises `Malformed` where the stream ends before."""
    while size > 0:
        size -= len(take(stream, min(size, _CHUNK), where))


def unpacked_zstd(stream: io.BufferedReader, digests: Digests, path: Path) -> io.BufferedReader:
    """The plain bytes of a zstd stream (RFC 8878; frames one after another), never more at a time than is asked for.

    Windows over 128 MiB, bytes that are no frame and a frame that ends early raise `Malformed` when they are reached.
    Raises `MissingExtra`.
    """
    return io.BufferedReader(_Unpacked(stream, digests, path), _CHUNK)


class _Unpacked(io.RawIOBase):
    def __init__(self, stream: io.BufferedReader, digests: Digests, path: Path) -> None:
        pa = import_pyarrow(f"{path}: reading zstd")
        self._stream = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
        self._digests, self._path = digests, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with parsing(f"{self._path} before byte {self._digests.size}", "compressed data"):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
