"""Data portraits, reading and checking: a sketch of a dataset's keys that says "no" or "maybe", and who can trust it.

Spec: `specs/commitments.md`, "Portrait". A portrait holds the distinct top `bits` bits of the set's keys, so a record
that is in the set is never answered with "no", and a stranger with "maybe" at the rate that `bits` was chosen for or
below. A "maybe" is settled by an exact proof about the record (`pot.data.query`). The same keys and bits have one
spelling.

Shows, with `check_portrait` by whoever holds the keys: every "no" is right. With `check_portrait_buckets` by anybody:
for the opened buckets, no key is left out and none invented. A portrait that is wrong about w of the set tree's B
buckets passes r keys, drawn at random after it was handed over, with probability (1 - w/B)^r: good against many missing
entries, next to nothing against one. Who asks for the bucket of one record settles that record.
Does not show: alone, anything: a portrait with entries left out answers "no" where it should say "maybe" (A32). Whoever
has a portrait can test guesses about records, as far as they can compute keys.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pot.canonical import Count, Document, Hex32
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_arrays import Keys, check_keys, distinct, from_bytes, top_bits
from pot.commitments.setree_verify import KEY_BYTES, MAX_COUNT, open_buckets
from pot.errors import LimitExceeded, Malformed, UsageError

if TYPE_CHECKING:
    from pot.commitments.dataset import DatasetCommitment
from pot.commitments.hiding import Hiding

__all__ = [
    "MAX_ENTRIES",
    "MAX_PORTRAIT_BYTES",
    "Portrait",
    "PortraitHeader",
    "bucket_challenge",
    "check_portrait",
    "check_portrait_buckets",
    "check_portrait_header",
    "entries_of",
    "rice_for",
]

MAX_PORTRAIT_BYTES: Final = 1 << 30  # as all of a release bundle
MAX_ENTRIES: Final = 1 << 27  # 3 GiB of memory while they are read, 1 GiB then; at 10^-6 a file of 370 MB
MAX_HEADER_BYTES: Final = 1024
_ROWS: Final = 1 << 15  # rows of eight remainders unpacked at a time
_BLOCK: Final = 1 << 20  # bytes of quotients unpacked at a time, eight times that in memory


def rice_for(count: int, bits: int) -> int:
    """Width of a remainder: the least k with 25 · 2^k · count >= 12 · 2^bits, at most bits - 1.

    Gaps are geometric with mean 2^bits / count; the next smaller k is better only below ln(golden ratio), 0.481, of it.
    """
    return (-(-12 * (1 << bits) // (25 * count)) - 1).bit_length()


def entries_of(keys: Keys, bits: int) -> Keys:
    """A portrait's entries: the distinct top `bits` bits of `keys` (any order), ascending, as numbers."""
    return distinct(top_bits(keys, bits))


class PortraitHeader(Document):
    """First line of a portrait: whose keys it holds, and how many bits of each."""

    version: Literal["pot/portrait/v1"]
    commitment_sha256: Hex32
    view: str = Field(pattern=r"\A[a-z0-9-]{1,32}/[1-9][0-9]{0,3}\z")
    set_root_blake3: Hex32
    set_count: Count
    bits: Count
    rice: Count
    entries: Count
    hiding: Hiding | None = None

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        count, bits, entries = int(self.set_count), int(self.bits), int(self.entries)
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f"a set of {count} keys is out of range")
        if bits > 64 or (bits < 64 and 1 << bits <= count):
            raise ValueError(f"{bits} bits of each key say nothing about {count} keys")
        if int(self.rice) != rice_for(count, bits):
            raise ValueError(f"rice is {self.rice}, expected {rice_for(count, bits)}")
        if not 1 <= entries <= count:
            raise ValueError(f"{entries} entries cannot come from {count} keys")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A portrait: its header, its entries (uint64, ascending, distinct), and the bit stream that spells them."""

    header: PortraitHeader
    entries: Keys
    stream: bytes

    @classmethod
    def from_bytes(
        cls, data: bytes, *, what: str = "portrait", limit: int = MAX_PORTRAIT_BYTES, max_entries: int = MAX_ENTRIES
    ) -> Portrait:
        """Read a portrait; any other spelling of the same entries is refused. Memory: 24 bytes per entry, then 8.

        `limit` (bytes) and `max_entries` guard against files from outside; raise them only for one's own. Raises
        `Malformed`, `LimitExceeded`.
        """
        if len(data) > limit:
            raise LimitExceeded(f"{what}: {len(data)} bytes, more than the limit of {limit}")
        end = data.find(b"\n", 0, MAX_HEADER_BYTES + 1)
        if end < 0:
            raise Malformed(f"{what}: has no header line of at most {MAX_HEADER_BYTES} bytes")
        header = PortraitHeader.from_bytes(data[:end], what=f"{what} header", limit=MAX_HEADER_BYTES)
        if int(header.entries) > max_entries:
            raise LimitExceeded(f"{what}: {header.entries} entries, more than the limit of {max_entries}")
        stream = data[end + 1 :]
        return cls(header, _decode(stream, int(header.entries), int(header.bits), int(header.rice), what), stream)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return self.header.to_bytes() + b"\n" + self.stream

    def may_contain(self, key: bytes) -> bool:
        """Whether the set may hold a record with this key (8 bytes). False means no, if the portrait was checked."""
        if len(key) != KEY_BYTES:
            raise UsageError(f"portrait: a key has {KEY_BYTES} bytes, not {len(key)}")
        return bool(self.may_contain_keys(from_bytes(key))[0])

    def may_contain_keys(self, keys: Keys) -> NDArray[np.bool_]:
        """As `may_contain`, for a row of uint64."""
        asked = top_bits(check_keys(keys, "portrait"), int(self.header.bits))
        order = np.argsort(asked)  # so that neighbours in the question look into the same memory
        ordered = asked[order]
        places = np.minimum(np.searchsorted(self.entries, ordered), len(self.entries) - 1)
        found = np.empty(len(asked), np.bool_)
        found[order] = self.entries[places] == ordered
        return found


def check_portrait_header(portrait: Portrait, commitment: DatasetCommitment) -> None:
    """Refuse unless the portrait is about this commitment and its set ("portrait-commitment")."""
    header = portrait.header
    found = (header.commitment_sha256, header.view, header.set_root_blake3, header.set_count, header.hiding)
    expected = (
        commitment.sha256(),
        commitment.view,
        commitment.set.root_blake3,
        commitment.set.count,
        commitment.hiding,
    )
    names = ("commitment_sha256", "view", "set_root_blake3", "set_count", "hiding")
    for name, mine, theirs in zip(names, found, expected, strict=True):
        if mine != theirs:
            raise ProofRefused("portrait-commitment", f"portrait: {name} is {mine}, expected {theirs}")


def check_portrait(portrait: Portrait, commitment: DatasetCommitment, keys: Keys) -> None:
    """Refuse unless the portrait's entries are those of `keys` (uint64, any order), and these the commitment's set.

    For whoever holds the keys. Raises `ProofRefused` with the code "portrait-commitment", "portrait-set" or
    "portrait-keys".
    """
    check_portrait_header(portrait, commitment)
    header, held = portrait.header, distinct(check_keys(keys, "portrait"))
    root = SetTree(held).root.hex() if len(held) == int(header.set_count) else f"over {len(held)} keys"
    if root != header.set_root_blake3:
        raise ProofRefused(
            "portrait-set",
            f"portrait: these keys are not its set: root {root}, expected {header.set_root_blake3} "
            f"over {header.set_count} keys",
        )
    expected = entries_of(held, int(header.bits))
    if not np.array_equal(portrait.entries, expected):
        missing = len(np.setdiff1d(expected, portrait.entries, assume_unique=True))
        raise ProofRefused(
            "portrait-keys",
            f"portrait: {missing} of the {len(expected)} entries that the keys give are missing, "
            f"and {len(portrait.entries) + missing - len(expected)} do not come from them",
        )


def bucket_challenge(number: int) -> list[bytes]:
    """Keys drawn at random, each of which names a bucket to open; draw them after the portrait was handed over."""
    return [secrets.token_bytes(KEY_BYTES) for _ in range(number)]


def check_portrait_buckets(
    portrait: Portrait, commitment: DatasetCommitment, keys: Iterable[bytes], proof: bytes
) -> None:
    """Refuse unless the portrait is right about the buckets of `keys`, opened by a non-membership proof for `keys`.

    Shows: of all records whose keys lie in these buckets, none is left out and none is invented. Raises `ProofRefused`
    with the code "portrait-commitment", "portrait-proof" or "portrait-bucket"; `LimitExceeded`.
    """
    check_portrait_header(portrait, commitment)
    depth, bits = int(commitment.set.depth), int(portrait.header.bits)
    root = bytes.fromhex(commitment.set.root_blake3)
    try:
        opened = open_buckets(root, depth, int(commitment.set.count), keys, proof)
    except ProofRefused as error:
        raise ProofRefused("portrait-proof", f"portrait: the buckets are not the set's: {error}") from None
    for bucket, joined in opened.items():
        # a header whose bits do not exceed the depth is not read: 2^bits is over the count, which is over 2^depth
        edges = np.array([bucket << (bits - depth), ((bucket + 1) << (bits - depth)) - 1], np.uint64)
        start = np.searchsorted(portrait.entries, edges[0], "left")
        stop = np.searchsorted(portrait.entries, edges[1], "right")
        expected = entries_of(from_bytes(joined), bits)
        if not np.array_equal(portrait.entries[start:stop], expected):
            raise ProofRefused(
                "portrait-bucket",
                f"portrait: has {int(stop - start)} entries for bucket {bucket}, not the {len(expected)} of its keys",
            )


def _decode(stream: bytes, entries: int, bits: int, rice: int, what: str) -> Keys:
    """The entries that a bit stream spells: remainders, quotients, and nothing else."""
    low, high = entries * (rice + 1), entries * (rice + 1) + (1 << (bits - rice))
    if not -(-low // 8) <= len(stream) <= -(-high // 8):
        raise Malformed(f"{what}: {len(stream)} bytes of entries, expected {-(-low // 8)} to {-(-high // 8)}")
    data = np.frombuffer(stream, np.uint8)
    ends = _ones(data, entries * rice, entries, what)
    quotients = int(ends[-1]) + 1 - entries
    if -(-(entries * rice + int(ends[-1]) + 1) // 8) != len(data):
        raise Malformed(f"{what}: bytes follow after the last entry")
    remainders = _remainders(data, entries, rice)
    # before 64-bit numbers are added: the largest entry, in Python's integers
    largest = (quotients << rice) + entries - 1
    largest += (int((remainders >> np.uint64(32)).sum()) << 32) + int((remainders & np.uint64(0xFFFFFFFF)).sum())
    if largest >> bits:
        raise Malformed(f"{what}: an entry has more than {bits} bits")
    gaps = np.empty(entries, np.uint64)
    gaps[0] = ends[0]
    np.subtract(ends[1:], ends[:-1], out=gaps[1:].view(np.int64))  # each quotient and its closing bit
    gaps[1:] -= np.uint64(1)
    gaps <<= np.uint64(rice)
    gaps |= remainders
    gaps[1:] += np.uint64(1)
    return np.cumsum(gaps, dtype=np.uint64, out=gaps)


def _ones(data: NDArray[np.uint8], first_bit: int, expected: int, what: str) -> NDArray[np.int64]:
    """Places of the set bits from `first_bit` on, counted from there; refused unless they are `expected` many."""
    start, skip = first_bit >> 3, first_bit & 7
    tail = data[start:].copy()
    tail[:1] &= np.uint8(0xFF >> skip)
    found = sum(int(np.bitwise_count(tail[at : at + _BLOCK]).sum()) for at in range(0, len(tail), _BLOCK))
    if found != expected:
        raise Malformed(f"{what}: spells {found} entries, expected {expected}")
    places, filled = np.empty(expected, np.int64), 0
    for at in range(0, len(tail), _BLOCK):
        ones = np.flatnonzero(np.unpackbits(tail[at : at + _BLOCK]).view(np.bool_))
        places[filled : filled + len(ones)] = ones + (8 * at - skip)
        filled += len(ones)
    return places


def _remainders(data: NDArray[np.uint8], entries: int, width: int) -> Keys:
    """`entries` numbers of `width` (0 to 63) bits each, most significant bit first, from the first bit on."""
    if not width:
        return np.zeros(entries, np.uint64)
    rows = -(-entries // 8)  # eight numbers take `width` whole bytes
    out = np.empty((rows, 8), np.uint64)
    for start in range(0, rows, _ROWS):
        stop = min(start + _ROWS, rows)
        block = np.zeros((stop - start) * width + 8, np.uint8)  # a field is read as the eight bytes from its first on
        part = data[start * width : stop * width]
        block[: len(part)] = part
        for lane in range(8):
            low = min(width, 32)
            number = _field(block, width, stop - start, (lane + 1) * width - low, low)
            if width > low:
                number |= _field(block, width, stop - start, lane * width, width - low) << np.uint64(low)
            out[start:stop, lane] = number
    return out.reshape(-1)[:entries]


def _field(block: NDArray[np.uint8], row_bytes: int, rows: int, first_bit: int, width: int) -> Keys:
    """The `width` (1 to 32) bits from `first_bit` on, of every row."""
    words = np.ndarray((rows,), ">u8", block, first_bit >> 3, (row_bytes,)).astype(np.uint64)
    return (words >> np.uint64(64 - (first_bit & 7) - width)) & np.uint64((1 << width) - 1)
