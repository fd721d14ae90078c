"""Listings: both kinds give the roots that the plain code gives, with NumPy and without."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import numpy as np
import pytest
from blake3 import blake3

from pot.commitments import listing as listings
from pot.commitments.hashing import BLAKE3, record_digest
from pot.commitments.listing import (
    digests_of,
    gram_parts,
    plain_keys_of,
    roots_of,
    set_keys_of,
    split_digests,
    split_grams,
)
from pot.commitments.merkle_plain import merkle_root
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree_plain import SetTree


def grams(records: list[list[bytes]]) -> bytes:
    numbers = b"".join(len(keys).to_bytes(4, "little") for keys in records)
    return numbers + b"".join(key for keys in records for key in keys)


def random_grams(seed: int, count: int) -> list[list[bytes]]:
    random = Random(seed)
    pool = [random.randbytes(8) for _ in range(3 * count + 1)]
    return [random.choices(pool, k=random.choice((0, 1, 2, 9))) for _ in range(count)] + [[pool[0]]]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 100, 1000])
def test_a_plain_listing_gives_the_roots_of_the_plain_code(count: int) -> None:
    digests = [record_digest(b"%d" % (number % 700)) for number in range(count)]
    tree = SetTree.build(digests)
    for data in (b"".join(digests), np.frombuffer(b"".join(digests), np.uint8)):
        roots = roots_of(count, False, data)
        assert (roots.count, roots.records_root) == (count, merkle_root(digests, BLAKE3).hex())
        assert (roots.distinct, roots.depth, roots.set_root) == (tree.count, tree.depth, tree.root.hex())
        assert [row.tobytes() for row in digests_of(count, False, data)] == digests
    assert roots == listings._roots_plain(count, False, b"".join(digests))


@pytest.mark.parametrize("seed", range(5))
def test_a_gram_listing_has_a_digest_per_record_and_all_keys_in_the_set(seed: int) -> None:
    records = random_grams(seed, 40)
    data = grams(records)
    roots = roots_of(len(records), True, data)
    assert roots == listings._roots_plain(len(records), True, data)
    leaves = [blake3(b"".join(keys)).digest() for keys in records]
    assert roots.records_root == merkle_root(leaves, BLAKE3).hex()
    assert [row.tobytes() for row in digests_of(len(records), True, data)] == leaves
    distinct = sorted({key for keys in records for key in keys})
    assert [int(key).to_bytes(8, "big") for key in set_keys_of(len(records), True, data)] == distinct
    assert list(plain_keys_of(len(records), True, data)) == [key for keys in records for key in keys]
    assert list(split_grams(len(records), data)) == [b"".join(keys) for keys in records]
    counts, keys = gram_parts(len(records), data)
    assert counts.tolist() == [len(item) for item in records]
    assert len(keys) == sum(counts)


def test_keys_beyond_memory_go_through_files_to_the_same_root(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [record_digest(b"%d" % (number % 4000)) for number in range(5000)]
    small = roots_of(5000, False, b"".join(digests))
    monkeypatch.setattr(listings, "_IN_MEMORY", 100)
    monkeypatch.setattr(listings, "_STEP", 300)
    assert roots_of(5000, False, b"".join(digests)) == small


@pytest.mark.parametrize(
    ("count", "gram", "data"),
    [
        (0, False, b""),
        (1, False, b""),
        (2, False, bytes(63)),
        (2, False, bytes(96)),
        (0, True, b""),
        (1, True, b"\x01\0\0"),
        (1, True, b"\x01\0\0\0" + bytes(7)),
        (1, True, b"\x01\0\0\0" + bytes(16)),
        (2, True, b"\x01\0\0\0" + bytes(11)),
        (1, True, b"\xff\xff\xff\xff" + bytes(8)),
    ],
)
def test_a_listing_of_another_length_is_refused(count: int, gram: bool, data: bytes) -> None:
    with pytest.raises(ProofRefused) as caught:
        roots_of(count, gram, data)
    assert caught.value.code == "digests-length"


def test_non_membership_is_verified_with_blake3_alone() -> None:
    """The whole check of an exclusion file, in an interpreter in which NumPy and numba cannot be imported."""
    script = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numpy", "numba"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numpy" else found(name, *rest)
from blake3 import blake3
from pot.commitments.dataset import DatasetCommitment, Shard, commit_digests
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree_plain import SetTree
from pot.data.exclude_verify import Exclusion, ExclusionHeader, check_exclusion
def committed(role, numbers):
    digests = b"".join(blake3(b"%d" % number).digest() for number in numbers)
    shard = Shard(name="a", bytes="1", records=str(len(numbers)), sha256="0" * 64, blake3="0" * 64)
    return commit_digests(role, "text/1", digests, 9, [shard]), digests
d, ours = committed("training", range(3000))
x, theirs = committed("exclusion", range(3000, 6000))
tree = SetTree.build([ours[at:at + 32] for at in range(0, len(ours), 32)])
keys = [theirs[at:at + 8] for at in range(0, len(theirs), 32)]
header = ExclusionHeader(version="pot/exclusion/v1", training_sha256=d.sha256(), exclusion_sha256=x.sha256())
file = Exclusion(header, tree.prove_absent(keys)).to_bytes()
check_exclusion(d, x, theirs, file)
try:
    check_exclusion(d, x, theirs, file[:-1] + bytes([file[-1] ^ 1]))
except ProofRefused as error:
    print(error.code)
assert "numpy" not in sys.modules and "numba" not in sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "proof\n"), ended.stderr


def test_split_digests_cuts_every_32_bytes() -> None:
    assert split_digests(bytes(64)) == [bytes(32)] * 2
