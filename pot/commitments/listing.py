"""Listings: the digests, or the gram keys, of a dataset's records, and the two roots that they give.

Spec: `specs/commitments.md`, "Listing". A plain view's listing is 32 bytes per record, in order. A gram view's is one
u32 per record (how many keys it has) and then all keys, 8 bytes each; a record's digest is then BLAKE3 over its keys.

The roots are computed with arrays where NumPy is there, in bounded memory, and with `blake3` alone where it is not;
both give the same bytes.

Shows: two listings with the same roots and counts are the same. Does not show: which data a listing was made from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from pot.commitments.hashing import BLAKE3, DIGEST_BYTES
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree_verify import KEY_BYTES, key_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "COUNT_BYTES",
    "Roots",
    "digests_of",
    "gram_parts",
    "keyless",
    "plain_keys_of",
    "roots_of",
    "set_keys_of",
    "split_digests",
    "split_grams",
]

COUNT_BYTES: Final = 4
_STEP: Final = 1 << 20  # records at a time: 32 MiB of digests
_IN_MEMORY: Final = 1 << 24  # keys that are sorted in memory (128 MiB, a few times over); more go through files


@dataclass(frozen=True, slots=True)
class Roots:
    """Both roots of a listing: hex digests, `count` of records, `distinct` set keys, `depth` of the set tree."""

    count: int
    records_root: str
    distinct: int
    depth: int
    set_root: str


def roots_of(count: int, gram: bool, listing: Any) -> Roots:
    """Both roots of `count` records (at least 1). `listing`: bytes, or a uint8 array that may be memory-mapped.

    Raises `ProofRefused` ("digests-length") where the length does not fit `count`.
    """
    check_length(count, gram, listing)
    return _roots_with_arrays(count, gram, listing) if find_spec("numpy") else _roots_plain(count, gram, bytes(listing))


def check_length(count: int, gram: bool, listing: Any) -> None:
    """Refuse a listing that is not `count` digests, or `count` numbers of keys and that many keys."""
    found, expected = len(listing), DIGEST_BYTES * count
    if gram:
        expected = COUNT_BYTES * count + KEY_BYTES * _total(bytes(listing[: COUNT_BYTES * count]))
    if found != expected or not count:
        what = "numbers and keys" if gram else "digests"
        raise ProofRefused(
            "digests-length", f"digest list: {found} bytes, expected {expected} for the {what} of {count} records"
        )


def _total(numbers: bytes) -> int:
    """The sum of the u32 numbers of keys; a cut list ends in a number that is short, and is refused by its length."""
    if find_spec("numpy"):
        import numpy as np

        return int(np.frombuffer(numbers[: len(numbers) & ~3], "<u4").sum(dtype=np.uint64))
    return sum(int.from_bytes(numbers[at : at + COUNT_BYTES], "little") for at in range(0, len(numbers), COUNT_BYTES))


def split_digests(digests: bytes) -> list[bytes]:
    """Cut a plain listing (32 bytes each, in record order) into digests. The length must be a multiple of 32."""
    return [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]


def split_grams(count: int, listing: bytes) -> Iterator[bytes]:
    """The joined keys (8 bytes each) of every record of a gram listing whose length was checked."""
    at = COUNT_BYTES * count
    for number in range(count):
        size = KEY_BYTES * int.from_bytes(listing[COUNT_BYTES * number : COUNT_BYTES * (number + 1)], "little")
        yield listing[at : at + size]
        at += size


def digests_of(count: int, gram: bool, listing: Any) -> NDArray[np.uint8]:
    """The record digests, uint8 of shape (count, 32); of a plain listing without a copy. Raises `ProofRefused`."""
    import numpy as np

    check_length(count, gram, listing)
    if not gram:
        return np.frombuffer(listing, np.uint8).reshape(count, DIGEST_BYTES)
    return np.concatenate([*_digest_blocks(count, gram, listing), np.empty((0, DIGEST_BYTES), np.uint8)])


def set_keys_of(count: int, gram: bool, listing: Any) -> NDArray[np.uint64]:
    """The distinct set keys, ascending, as integers (big-endian reading of 8 bytes); 16 bytes of memory each.

    Raises `ProofRefused`.
    """
    import numpy as np

    from pot.commitments.setree_arrays import distinct

    check_length(count, gram, listing)
    return distinct(np.concatenate([*_key_blocks(count, gram, listing), np.empty(0, np.uint64)]))


def keyless(count: int, gram: bool, listing: Any) -> int:
    """How many records of a gram listing have no key: they are too short to be compared. 0 for a plain listing."""
    if not gram:
        return 0
    head = memoryview(listing)[: COUNT_BYTES * count]
    return sum(not any(head[at : at + COUNT_BYTES]) for at in range(0, len(head), COUNT_BYTES))


def plain_keys_of(count: int, gram: bool, listing: Any) -> Iterator[bytes]:
    """All set keys of a listing whose length was checked, 8 bytes each, in order and with repeats; without NumPy."""
    start, step = (COUNT_BYTES * count, KEY_BYTES) if gram else (0, DIGEST_BYTES)
    data = memoryview(listing)
    return (bytes(data[at : at + KEY_BYTES]) for at in range(start, len(data), step))


def gram_parts(count: int, listing: Any) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """How many keys each record of a gram listing has, and all keys in order."""
    import numpy as np

    data = np.frombuffer(listing, np.uint8)
    counts = data[: COUNT_BYTES * count].view("<u4").astype(np.int64)
    return counts, data[COUNT_BYTES * count :].view(">u8").astype(np.uint64)


def _part(listing: Any, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes `start` to `stop`. A file is read and not mapped here: its pages would count as this process's memory."""
    import numpy as np

    if isinstance(listing, np.memmap) and listing.filename is not None and listing.size == _size(listing.filename):
        return np.fromfile(listing.filename, np.uint8, stop - start, offset=start)
    return np.frombuffer(listing, np.uint8)[start:stop]


def _size(path: Any) -> int:
    return os.stat(path).st_size


def _digest_blocks(count: int, gram: bool, listing: Any) -> Iterator[NDArray[np.uint8]]:
    import numpy as np

    from pot.commitments.batch import hash_spans
    from pot.commitments.spans import Spans

    if not gram:
        for start in range(0, count, _STEP):
            stop = min(count, start + _STEP)
            yield _part(listing, DIGEST_BYTES * start, DIGEST_BYTES * stop).reshape(-1, DIGEST_BYTES)
        return
    at = COUNT_BYTES * count
    for start in range(0, count, _STEP):
        numbers = _part(listing, COUNT_BYTES * start, COUNT_BYTES * min(count, start + _STEP)).view("<u4")
        offsets = np.zeros(len(numbers) + 1, np.int64)
        np.cumsum(numbers.astype(np.int64) * KEY_BYTES, out=offsets[1:])
        yield hash_spans(Spans(_part(listing, at, at + int(offsets[-1])), offsets))
        at += int(offsets[-1])


def _key_blocks(count: int, gram: bool, listing: Any) -> Iterator[NDArray[np.uint64]]:
    import numpy as np

    from pot.commitments.batch import keys_of

    if not gram:
        yield from (keys_of(block) for block in _digest_blocks(count, gram, listing))
        return
    step = 4 * KEY_BYTES * _STEP
    for start in range(COUNT_BYTES * count, len(listing), step):
        yield _part(listing, start, min(len(listing), start + step)).view(">u8").astype(np.uint64)


def _roots_with_arrays(count: int, gram: bool, listing: Any) -> Roots:
    from pot.commitments.merkle import OrderedRoot
    from pot.commitments.setree import SetTree

    ordered = OrderedRoot()
    for block in _digest_blocks(count, gram, listing):
        ordered.update(block)
    size = len(listing) // KEY_BYTES if gram else count
    if size > _IN_MEMORY:
        import tempfile
        from pathlib import Path

        from pot.commitments.setree_spill import spilled

        with (
            tempfile.TemporaryDirectory(prefix="pot-set-") as folder,
            spilled(_key_blocks(count, gram, listing), Path(folder)) as tree,
        ):
            return Roots(count, ordered.root().hex(), tree.count, tree.depth, tree.root.hex())
    small = SetTree.of_keys(set_keys_of(count, gram, listing))
    return Roots(count, ordered.root().hex(), small.count, small.depth, small.root.hex())


def _roots_plain(count: int, gram: bool, listing: bytes) -> Roots:
    from pot.commitments.merkle_plain import merkle_root
    from pot.commitments.setree_plain import SetTree

    if gram:
        records = list(split_grams(count, listing))
        leaves = [blake3(keys).digest() for keys in records]
        keys = {joined[at : at + KEY_BYTES] for joined in records for at in range(0, len(joined), KEY_BYTES)}
    else:
        leaves = split_digests(listing)
        keys = {key_of(leaf) for leaf in leaves}
    tree = SetTree(sorted(keys))
    return Roots(count, merkle_root(leaves, BLAKE3).hex(), tree.count, tree.depth, tree.root.hex())
