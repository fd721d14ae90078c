"""Megatron-LM's indexed token files: a `.bin` of numbers and a `.idx` that cuts it.

Spec: `specs/containers.md`, "megatron". A record is a document, or a sequence where the index names no documents. The
pair is one shard; its digests are over the index's bytes followed by the numbers' bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pot.data.readers.reader import ShardReader
from pot.data.readers.record import Record, check_size, record_cap
from pot.data.readers.source import Source, pass_over, take
from pot.errors import EnvironmentFailure, Malformed, UsageError

__all__ = ["MegatronReader"]

MAGIC: Final = b"MMIDIDX\0\0"
HEADER: Final = 34  # magic 9, version 8, code 1, sequences 8, documents 8
TYPES: Final = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


class MegatronReader(ShardReader):
    """Reads NAME.bin by the NAME.idx beside it; every record has the one field `tokens`."""

    suffixes = (".bin",)

    def _pieces(self, source: Source) -> Iterator[tuple[str, Any]]:
        import numpy as np

        if any(stored != "tokens" for stored in self._wanted.values()):
            raise UsageError(f"{self.path}: records of a Megatron file have the field 'tokens' and no other")
        dtype, ends = self._index(source)
        stream = source.stream()
        size, start = np.dtype(dtype).itemsize, 0
        for number, end in enumerate(ends):
            where, length = f"{self.path} record {number}", (int(end) - start) * size
            start = int(end)
            if length > record_cap():
                pass_over(stream, length, where)
                yield where, (length, dtype)
            else:
                yield where, (take(stream, length, where), dtype)

    def _record(self, where: str, piece: Any) -> Record:
        import numpy as np

        data, dtype = piece
        check_size(data if isinstance(data, int) else len(data), where)
        tokens = np.frombuffer(data, dtype).astype(np.dtype(dtype).newbyteorder("="))
        return Record(where, b"", dict.fromkeys(self._wanted or ("tokens",), tokens))

    def _index(self, source: Source) -> tuple[str, Any]:
        """The numbers' type, and for each record the number of tokens before its end."""
        path = self.path.with_name(self.path.name.removesuffix(".bin") + ".idx")
        try:
            with Source(path, self._digests) as index:
                try:
                    return _ends(memoryview(index.stream().read()), source.size, path)
                finally:
                    index.finish()
                    source.begin()
        except FileNotFoundError:
            raise UsageError(f"{self.path}: has no {path.name} beside it") from None
        except OSError as error:
            raise EnvironmentFailure(f"{path}: cannot be read: {error.strerror or error}") from None


def _ends(view: memoryview, bin_size: int, path: Path) -> tuple[str, Any]:
    import numpy as np

    if bytes(view[:9]) != MAGIC or int.from_bytes(view[9:17], "little") != 1 or len(view) < HEADER:
        raise Malformed(f"{path}: no index of Megatron, version 1")
    dtype = TYPES.get(view[17])
    if dtype is None:
        raise Malformed(f"{path}: numbers of code {view[17]}; tokens are integers")
    sequences, documents = (int.from_bytes(view[at : at + 8], "little") for at in (18, 26))
    if len(view) != HEADER + 12 * sequences + 8 * documents:
        raise Malformed(
            f"{path}: {len(view)} bytes do not fit {sequences} sequences and {documents} entries of documents "
            "(an index with modes is not read)"
        )
    at = HEADER + 4 * sequences
    lengths = np.frombuffer(view[HEADER:at], "<i4").astype(np.int64)
    pointers = np.frombuffer(view[at : at + 8 * sequences], "<i8")
    marks = np.frombuffer(view[at + 8 * sequences :], "<i8")
    ends = lengths.cumsum()
    size = np.dtype(dtype).itemsize
    if len(lengths) and int(lengths.min()) < 0:
        raise Malformed(f"{path}: a sequence of negative length")
    if int(ends[-1]) * size != bin_size if len(ends) else bin_size:
        raise Malformed(f"{path}: its sequences do not fill the {bin_size} bytes of the .bin file; one is cut short")
    if not np.array_equal(pointers, (ends - lengths) * size):
        raise Malformed(f"{path}: its sequences do not follow one another in the .bin file")
    if len(marks) <= 1:
        return dtype, ends
    if marks[0] != 0 or marks[-1] != sequences or bool(np.any(marks[1:] < marks[:-1])):
        raise Malformed(f"{path}: its documents do not ascend from sequence 0 to {sequences}")
    return dtype, np.concatenate([np.zeros(1, np.int64), ends])[marks[1:]]
