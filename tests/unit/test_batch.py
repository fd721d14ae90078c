"""Batch hashing: the same bytes with and without the kernel, its fallbacks, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from pot.commitments import batch, compiled
from pot.commitments.batch import hash_pairs, hash_rows, hash_spans, hash_windows, keys_of
from pot.commitments.compiled import Compiled
from pot.commitments.spans import Spans
from pot.errors import UsageError

DATA = np.arange(6000, dtype=np.int64).astype(np.uint8)
KEY = bytes(range(32))


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch._KERNEL, "unusable", "numba is not installed")


@pytest.mark.usefixtures("without_numba")
def test_plain_hashing_is_blake3() -> None:
    assert not batch.accelerated()
    assert not batch.load_kernel()
    strings = [b"", b"a", b"b" * 5000, *(b"%d" % number for number in range(30))]
    for key in (None, KEY):
        expected = [(blake3(string) if key is None else blake3(string, key=key)).digest() for string in strings]
        assert [row.tobytes() for row in hash_spans(Spans.of(strings), key)] == expected
    rows = DATA[:640].reshape(10, 64)
    assert [row.tobytes() for row in hash_rows(rows)] == [blake3(row.tobytes()).digest() for row in rows]
    assert hash_pairs(rows.reshape(20, 32), KEY).tobytes() == hash_rows(rows, KEY).tobytes()
    starts = np.array([5, 0, 5999], np.int64)
    assert [row.tobytes() for row in hash_windows(DATA, starts, 1)] == [
        blake3(DATA[s : s + 1].tobytes()).digest() for s in starts
    ]


def test_nothing_gives_nothing() -> None:
    assert hash_spans(Spans.of([])).shape == (0, 32)
    assert hash_windows(DATA, np.empty(0, np.int64), 5).shape == (0, 32)
    assert hash_pairs(np.empty((0, 32), np.uint8), KEY).shape == (0, 32)
    assert keys_of(np.empty((0, 32), np.uint8)).shape == (0,)


def test_keys_are_the_first_eight_bytes_big_endian() -> None:
    digests = hash_rows(DATA.reshape(-1, 60))
    assert keys_of(digests).tolist() == [int.from_bytes(row[:8].tobytes(), "big") for row in digests]
    assert keys_of(digests[::3]).tolist() == keys_of(digests)[::3].tolist()
    assert keys_of(digests).dtype == np.uint64


def test_arrays_that_are_read_only_or_have_gaps_are_hashed_as_they_are() -> None:
    kept = DATA.copy()
    kept.setflags(write=False)
    assert hash_rows(kept.reshape(-1, 60)).tobytes() == hash_rows(DATA.reshape(-1, 60)).tobytes()
    gaps = DATA.reshape(-1, 60)[::2, :32]
    assert [row.tobytes() for row in hash_rows(gaps)] == [blake3(row.tobytes()).digest() for row in gaps]


def test_the_kernel_is_loaded_once_there_was_much_to_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    module = Compiled("some.kernel", "last", patience=100, few=16, purpose="hashing")
    monkeypatch.setattr(module, "unusable", "")
    monkeypatch.setattr(compiled, "import_module", lambda name: loaded.append(name) or "kernel")
    assert [module.take(count) for count in (60, 15, 40, 15, 16)] == [None, None, None, None, "kernel"]
    assert loaded == ["some.kernel"]


def test_a_numba_that_does_not_work_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise ImportError("Numba needs NumPy 1.0 or less")

    module = Compiled("some.kernel", "last", patience=0, few=16, purpose="hashing")
    monkeypatch.setattr(module, "unusable", "")
    monkeypatch.setattr(batch, "_KERNEL", module)
    monkeypatch.setattr(compiled, "import_module", broken)
    rows = DATA.reshape(-1, 60)
    with pytest.warns(RuntimeWarning, match="without Numba, slower: Numba needs NumPy"):
        found = hash_rows(rows)
    assert [row.tobytes() for row in found] == [blake3(row.tobytes()).digest() for row in rows]
    assert not batch.accelerated()
    hash_rows(rows)


def test_a_compiler_that_is_switched_off_is_an_import_error_and_nothing_worse() -> None:
    words = {"NUMBA_DISABLE_JIT": "1"}
    script = "from pot.commitments import batch; print(batch.load_kernel())"
    told = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert told.stdout == "False\n"
    assert "switched off" in told.stderr


def test_importing_batch_hashing_does_not_import_numba() -> None:
    script = "import sys, pot.commitments.merkle; print('numba' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path("/"))
    assert told.stdout == "False\n"


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: hash_spans(Spans(DATA, np.array([0, 6001], np.int64))), "do not ascend within"),
        (lambda: hash_spans(Spans(DATA, np.array([5, 3], np.int64))), "do not ascend within"),
        (lambda: hash_windows(DATA, np.array([-1], np.int64), 5), "not within the 6000 bytes"),
        (lambda: hash_windows(DATA, np.array([5996], np.int64), 5), "not within the 6000 bytes"),
        (lambda: hash_windows(DATA, np.array([0], np.int64), 2**62), "not within the 6000 bytes"),
        (lambda: hash_windows(DATA, np.array([0], np.int64), -5), "not negative"),
        (lambda: hash_windows(DATA, np.array([0], np.int32), 5), "row of int64"),  # type: ignore[arg-type]
        (lambda: hash_pairs(np.zeros((3, 32), np.uint8), KEY), "even number of rows"),
        (lambda: hash_pairs(np.zeros((2, 33), np.uint8), KEY), "even number of rows"),
        (lambda: hash_rows(np.zeros((2, 32), np.int64), KEY), "table of uint8"),  # type: ignore[arg-type]
        (lambda: hash_rows(np.zeros((99, 32), np.uint8), KEY[:31]), "31 bytes, expected 32"),
        (lambda: hash_rows(np.zeros((1, 32), np.uint8), b""), "0 bytes, expected 32"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_read(work: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        work()  # type: ignore[operator]
