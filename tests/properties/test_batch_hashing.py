"""The compiled kernel gives the bytes of `blake3`, for every length and every width of vector."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from pot.commitments.batch import accelerated, hash_pairs, hash_rows, hash_spans, hash_windows, load_kernel
from pot.commitments.hashing import BLAKE3
from pot.commitments.merkle import OrderedRoot
from pot.commitments.merkle_plain import merkle_root
from pot.commitments.spans import Spans

KEYS = st.none() | st.binary(min_size=32, max_size=32)
POOL = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)


def plain(data: bytes, key: bytes | None) -> bytes:
    return (blake3(data) if key is None else blake3(data, key=key)).digest()


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    """These tests would show nothing without the kernel."""
    assert load_kernel()
    assert accelerated()


def check(strings: list[bytes], key: bytes | None) -> None:
    found = hash_spans(Spans.of(strings), key)
    assert [row.tobytes() for row in found] == [plain(string, key) for string in strings]


@pytest.mark.parametrize("key", [None, bytes(range(32))])
def test_every_length_up_to_five_chunks_and_around_every_chunk_limit(key: bytes | None) -> None:
    """Forwards and backwards: so each length is once the last, whose block ends where the data ends."""
    lengths = [*range(5200), *(1024 * chunks + more for chunks in range(5, 70) for more in (-1, 0, 1))]
    strings = [POOL[length % 999 : length % 999 + length].tobytes() for length in lengths]
    check(strings, key)
    check(strings[::-1], key)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1023, 1024, 1025, 3000, 65536, 65537])
def test_every_number_of_strings_around_full_lanes(length: int) -> None:
    for count in range(1, 40):
        check([POOL[at : at + length].tobytes() for at in range(count)], None)


@given(st.lists(st.integers(0, 9000), min_size=16, max_size=200), st.integers(0, 99), KEYS)
def test_any_mixture_of_lengths(lengths: list[int], shift: int, key: bytes | None) -> None:
    check([POOL[shift : shift + length].tobytes() for length in lengths], key)


@given(st.lists(st.integers(0, 4000), min_size=16, max_size=99), st.integers(0, 3000), KEYS, st.booleans())
def test_windows_in_any_order_and_up_to_the_end(starts: list[int], length: int, key: bytes | None, last: bool) -> None:
    data = POOL[7 : max(starts) + length + 7] if last else POOL
    found = hash_windows(data, np.array(starts, np.int64), length, key)
    assert [row.tobytes() for row in found] == [plain(data[s : s + length].tobytes(), key) for s in starts]


@given(st.integers(16, 90), st.sampled_from([1, 31, 32, 33, 64, 65, 1500]), KEYS)
def test_rows_of_any_width(count: int, width: int, key: bytes | None) -> None:
    rows = POOL[: count * width].reshape(count, width)
    assert [row.tobytes() for row in hash_rows(rows, key)] == [plain(row.tobytes(), key) for row in rows]


@given(st.integers(16, 90), st.binary(min_size=32, max_size=32))
def test_pairs_of_a_level(count: int, key: bytes) -> None:
    level = POOL[: 64 * count].reshape(-1, 32)
    expected = [plain(level[at : at + 2].tobytes(), key) for at in range(0, 2 * count, 2)]
    assert [row.tobytes() for row in hash_pairs(level, key)] == expected


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(2, 6))
def test_an_ordered_root_does_not_depend_on_how_its_leaves_come(parts: list[int], log_block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pot.commitments.merkle._BLOCK", 1 << log_block)
        ordered, start = OrderedRoot(), 0
        for part in parts:
            ordered.update(POOL[32 * start : 32 * (start + part)].reshape(-1, 32))
            start += part
            leaves = [POOL[at : at + 32].tobytes() for at in range(0, 32 * start, 32)]
            assert ordered.root() == merkle_root(leaves, BLAKE3)
        assert ordered.count == start


SCRIPT = """
import numpy as np
from blake3 import blake3
from pot.commitments import blake3_lanes as lanes
data, key = np.random.default_rng(0).integers(0, 256, 400_000, np.uint8), bytes(range(32))
words = np.frombuffer(key, np.uint32)
lengths = np.array([*range(300), 1023, 1024, 1025, 5000, 65536] * 2)
ends = np.cumsum(lengths)
out = np.empty((len(ends), 32), np.uint8)
lanes.hash_strings(data, ends - lengths, ends, words, lanes.KEYED, out)
for row, end, length in zip(out, ends, lengths):
    assert row.tobytes() == blake3(data[end - length : end].tobytes(), key=key).digest(), length
for width, hashed in ((32, lanes.hash_halves), (64, lanes.hash_pairs)):
    for count in range(40):
        rows, out = data[: width * count].reshape(count, width), np.empty((count, 32), np.uint8)
        hashed(rows, words, lanes.KEYED, out)
        assert [row.tobytes() for row in out] == [blake3(row.tobytes(), key=key).digest() for row in rows]
print(lanes.LANES)
"""


@pytest.mark.parametrize(("features", "lanes"), [("+avx2", 8), ("+sse4.1", 4)])
def test_machines_with_shorter_vectors_give_the_same_bytes(features: str, lanes: int, tmp_path: Path) -> None:
    words = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert told.stderr == ""
    assert told.stdout == f"{lanes}\n"
