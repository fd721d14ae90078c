"""Plain files: each file is one record.

Spec: `specs/containers.md`, "file, text". Whether the bytes are text is the view's matter.
"""

from __future__ import annotations

from collections.abc import Iterator

from pot.data.readers.reader import ShardReader
from pot.data.readers.record import Record, check_size, record_cap
from pot.data.readers.source import Source

__all__ = ["FileReader"]


class FileReader(ShardReader):
    """Reads a file as one record without fields; the containers "file" and "text" differ in name only."""

    def _pieces(self, source: Source) -> Iterator[tuple[str, bytes]]:
        # one byte over the cap is enough to know; the rest is only hashed
        yield str(self.path), source.stream().read(min(source.size, record_cap()) + 1)

    def _record(self, where: str, piece: bytes) -> Record:
        check_size(len(piece), where)
        return Record(where, piece, None)
