"""JSON lines: one JSON object per line; with `.zst`, the same compressed.

Spec: `specs/containers.md`, "jsonl". Lines end with a newline (0x0a); the last one may go without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from pot.canonical import parse
from pot.data.readers.reader import ShardReader
from pot.data.readers.record import Record, check_size, record_cap, seen_by
from pot.data.readers.source import Source, unpacked_zstd
from pot.errors import Malformed

__all__ = ["JsonlReader", "lines_of", "parse_line"]


class JsonlReader(ShardReader):
    """Reads `.jsonl` and `.jsonl.zst`. A line over the cap is never held whole."""

    def _pieces(self, source: Source) -> Iterator[tuple[str, bytes]]:
        stream = source.stream()
        if self.container == "jsonl.zst":
            stream = unpacked_zstd(stream, self._digests, self.path)
        for number, line in enumerate(lines_of(stream, drain=self._skipping), 1):
            yield f"{self.path} line {number}", line

    def _record(self, where: str, piece: bytes) -> Record:
        return Record(where, piece, seen_by(self._wanted, parse_line(piece, where), where))


def lines_of(stream: BinaryIO, *, drain: bool) -> Iterator[bytes]:
    """The lines; of a line over the cap, its first bytes, one more than the cap.

    `drain`: read such a line to its end, to go on after it; its reader will not be stopped by it.
    """
    while line := stream.readline(record_cap() + 1):
        end = line
        while drain and len(line) > record_cap() and not end.endswith(b"\n"):
            end = stream.readline(1 << 20)
            if not end:
                break
        yield line


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object of one line. Raises `Malformed`, `LimitExceeded`."""
    check_size(len(line), where)
    if not line.strip():
        raise Malformed(f"{where}: empty line; each line must hold one JSON object")
    value = parse(line, what=where, limit=record_cap())
    if not isinstance(value, dict):
        raise Malformed(f"{where}: not a JSON object")
    return value
