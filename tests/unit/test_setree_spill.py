"""The set tree with its keys in files: the same bytes as in memory, and nothing left behind on any way out."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pot.commitments.setree import SetTree
from pot.commitments.setree_spill import spilled
from pot.commitments.setree_verify_batch import verify_absent_batch
from pot.errors import EnvironmentFailure, Refused, UsageError

RNG = np.random.default_rng(0)
SPREAD = RNG.integers(0, 2**64, 20_000, dtype=np.uint64)
STRANGERS = RNG.integers(0, 2**64, 700, dtype=np.uint64)
CASES = {
    "one": SPREAD[:1],
    "seven": SPREAD[:7],
    "eight": SPREAD[:8],
    "spread": SPREAD,
    "repeated": np.concatenate([SPREAD[:3000]] * 4),
    "one key over and over": np.full(9000, 2**63, np.uint64),
    "few prefixes": (SPREAD & np.uint64(0xFFFF)) | np.uint64(1 << 63),
    "ends of the range": np.array([0, 2**64 - 1, 1, 2**63], np.uint64),
}


def chunks(keys: np.ndarray, size: int = 777) -> Iterator[np.ndarray]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_root_and_proofs_are_those_of_the_tree_in_memory(
    name: str, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:  # every file is dealt again, and every pass ends inside a group of buckets
        for constant, value in (("_DEAL_KEYS", 1000), ("_SORT_KEYS", 50), ("_PASS_KEYS", 70), ("_MAX_READ", 64)):
            monkeypatch.setattr(f"pot.commitments.setree_spill.{constant}", value)
    keys = CASES[name]
    tree = SetTree.of_keys(keys)
    asked = STRANGERS[~tree.contains(STRANGERS)]
    with spilled(chunks(keys), tmp_path) as found:
        assert (found.root, found.count, found.depth) == (tree.root, tree.count, tree.depth)
        proof = found.prove_absent_keys(asked)
        assert proof == tree.prove_absent_keys(asked)
        assert found.prove_absent([b"\x12" * 8]) == tree.prove_absent([b"\x12" * 8])
        assert found.contains(keys).all()
        assert not found.contains(asked).any()
        with pytest.raises(Refused, match="1 of the 2 asked keys"):
            found.prove_absent_keys(np.array([keys[0], asked[0]], np.uint64))
    verify_absent_batch(tree.root, tree.depth, tree.count, asked, proof)
    assert not os.listdir(tmp_path)


def test_only_the_sorted_keys_stay_on_disk_and_only_inside_the_context(tmp_path: Path) -> None:
    with spilled(chunks(CASES["repeated"]), tmp_path) as tree:
        (own,) = tmp_path.iterdir()
        assert [(path.name, path.stat().st_size) for path in own.iterdir()] == [("sorted", 8 * 3000)]
    assert not os.listdir(tmp_path)
    with pytest.raises(EnvironmentFailure, match="sorted keys cannot be read"):
        tree.prove_absent_keys(STRANGERS)


def test_files_are_removed_when_the_reader_or_the_caller_fails(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield SPREAD
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), spilled(broken(), tmp_path):
        raise AssertionError("a tree over half the keys")
    assert not os.listdir(tmp_path)
    with pytest.raises(FileNotFoundError), spilled(chunks(SPREAD), tmp_path):
        raise FileNotFoundError("the caller's own error is left as it is")
    assert not os.listdir(tmp_path)


def test_nothing_to_commit_to_and_keys_of_another_type(tmp_path: Path) -> None:
    for none in ([], [SPREAD[:0]]):
        with pytest.raises(UsageError, match="no record"), spilled(none, tmp_path):
            raise AssertionError
    with pytest.raises(UsageError, match="one row of uint64"), spilled([SPREAD.astype(np.int64)], tmp_path):
        raise AssertionError
    with pytest.raises(EnvironmentFailure, match="name another folder"), spilled([SPREAD], tmp_path / "absent"):
        raise AssertionError
    assert not os.listdir(tmp_path)


def test_a_file_cut_short_while_the_tree_is_in_use_is_noticed(tmp_path: Path) -> None:
    with spilled(chunks(SPREAD), tmp_path) as tree:
        (path,) = tmp_path.glob("*/sorted")
        os.truncate(path, 8 * 100)
        with pytest.raises(EnvironmentFailure, match="cut short"):
            tree.prove_absent_keys(STRANGERS)


FULL = """
import signal, sys
from pathlib import Path
import numpy as np
from pot.commitments.setree_spill import spilled
from pot.errors import EnvironmentFailure
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
keys = np.random.default_rng(0).integers(0, 2**64, 50_000, dtype=np.uint64)
try:
    with spilled([keys], Path(sys.argv[1])) as tree:
        print("a tree")
except EnvironmentFailure as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [3000, 200_000])
def test_a_full_disk_is_one_sentence_and_leaves_no_file(tmp_path: Path, limit: int) -> None:
    """A file that would grow beyond the limit gives EFBIG, as a full disk gives ENOSPC: in dealing, and in sorting."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL, str(tmp_path)], text=True, capture_output=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == (
        f"{tmp_path}: the set tree's temporary files cannot be used: File too large; "
        "free some space or name another folder\n"
    )
    assert not os.listdir(tmp_path)
