"""The digest of tensors that many processes hold together, each some of the rows, and the same from whole tensors.

Spec: `specs/commitments.md`, "State", "Rows". With W processes and c = ceil(n / W), process r holds the rows r c to
min(n, (r + 1) c) of a tensor of n rows, which is how PyTorch's FSDP2 cuts its parameters. Each process hashes what it
holds, and one digest binds theirs, so no process ever needs the whole; who has the whole model (a released file) gets
the same digest from it.

Shows / does not show: as `pot.commitments.state`. The digest of the same tensors depends on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Final

from pot.canonical import derive
from pot.commitments.state import DTYPE_BITS, TensorEntry, tensors_digest
from pot.errors import LimitExceeded, Malformed

__all__ = [
    "MAX_PIECES",
    "ROWED",
    "SHARDS_CONTEXT",
    "join_entries",
    "joined_digest",
    "rows_of",
    "shard_entries",
    "sharded_digest",
]

SHARDS_CONTEXT: Final = "pot/shards/v1"
MAX_PIECES: Final = 1 << 21  # a thousand tensors over two thousand processes: half a minute
ROWED: Final = frozenset({"frozen", "model", "optimizer"})
"""Components that processes hold by rows; the others are the same in all of them."""


def rows_of(count: int, rank: int, world: int) -> tuple[int, int]:
    """First row, and row after the last, that process `rank` of `world` holds of `count` rows; equal: none."""
    chunk = -(-count // world)
    return min(count, rank * chunk), min(count, (rank + 1) * chunk)


def shard_entries(entries: Iterable[TensorEntry], rank: int, world: int) -> list[TensorEntry]:
    """The rows of whole tensors that process `rank` holds, not copied; tensors of which it holds none are left out.

    Tensors without dimensions or without elements belong to process 0. Raises `Malformed` where data and shape differ.
    """
    found = []
    for entry in entries:
        if not _is_cut(entry):
            if rank == 0:
                found.append(entry)
            continue
        first, after = rows_of(entry.shape[0], rank, world)
        if first < after:
            found.append(_cut(entry, first, after))
    return found


def join_entries(parts: Sequence[Iterable[TensorEntry]]) -> list[TensorEntry]:
    """The whole tensors, sorted by name, from what each process holds, in order of the processes.

    Raises `Malformed` where the parts are not those that `shard_entries` makes of any tensors.
    """
    held: dict[str, list[tuple[int, TensorEntry]]] = {}
    for rank, part in enumerate(parts):
        for entry in part:
            held.setdefault(entry.name, []).append((rank, entry))
    return [_joined(name, held[name], len(parts)) for name in sorted(held)]


def joined_digest(kind: str, digests: Sequence[str]) -> str:
    """The component's digest (hex) from `tensors_digest` of what each process holds, in order of the processes."""
    parts = [bytes.fromhex(digest) for digest in digests]
    return derive(SHARDS_CONTEXT, kind.encode(), len(parts).to_bytes(8, "little"), *parts).hex()


def sharded_digest(kind: str, entries: Sequence[TensorEntry], world: int, *, threads: int = 1) -> str:
    """The component's digest (hex) over `world` processes, from whole tensors that ascend by name. No torch needed.

    `threads`: as for `tensors_digest`. Raises `Malformed`, `LimitExceeded` above `MAX_PIECES`.
    """
    lists: list[list[TensorEntry]] = [[] for _ in range(world)]
    counts = [min(world, entry.shape[0]) if _is_cut(entry) else 0 for entry in entries]
    if sum(counts) > MAX_PIECES:
        raise LimitExceeded(f"{kind}: {world} processes cut it into {sum(counts)} pieces, more than {MAX_PIECES}")
    for entry, count in zip(entries, counts, strict=True):
        if count == 0:
            lists[0].append(entry)
        for rank in range(count):
            first, after = rows_of(entry.shape[0], rank, world)
            if first < after:
                lists[rank].append(_cut(entry, first, after))
    return joined_digest(kind, [tensors_digest(kind, held, threads=threads) for held in lists])


def _is_cut(entry: TensorEntry) -> bool:
    if entry.dtype not in DTYPE_BITS:
        raise Malformed(f"tensor {entry.name[:64]!r}: unknown dtype {entry.dtype[:16]!r}")
    size = memoryview(entry.data).nbytes
    if size != prod(entry.shape) * DTYPE_BITS[entry.dtype] // 8:
        raise Malformed(f"tensor {entry.name[:64]!r}: {size} bytes of data, which its shape does not explain")
    return bool(entry.shape) and size > 0


def _cut(entry: TensorEntry, first: int, after: int) -> TensorEntry:
    data = memoryview(entry.data).cast("B")
    width = len(data) // entry.shape[0]
    return TensorEntry(entry.name, entry.dtype, (after - first, *entry.shape[1:]), data[first * width : after * width])


def _joined(name: str, held: list[tuple[int, TensorEntry]], world: int) -> TensorEntry:
    first = held[0][1]
    if not _is_cut(first):
        if len(held) > 1 or held[0][0] != 0:
            raise Malformed(f"tensor {name[:64]!r} cannot be cut, but process {held[-1][0]} holds it")
        return first
    for _, entry in held:
        if not _is_cut(entry) or entry.dtype != first.dtype or entry.shape[1:] != first.shape[1:]:
            raise Malformed(f"tensor {name[:64]!r} has rows of different kinds")
    rows = sum(entry.shape[0] for _, entry in held)
    found = {rank: entry.shape[0] for rank, entry in held}
    for rank in range(min(world, rows)):
        start, after = rows_of(rows, rank, world)
        if found.get(rank, 0) != after - start:
            raise Malformed(f"tensor {name[:64]!r}: process {rank} does not hold {after - start} of its {rows} rows")
    if len(held) == 1:
        return first
    return TensorEntry(name, first.dtype, (rows, *first.shape[1:]), b"".join(entry.data for _, entry in held))
