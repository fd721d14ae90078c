"""A32: a portrait with entries left out, so that it answers "no" about records that are in the training data.

A portrait has no proof in it. Read alone the forged one is well formed and says "no". Caught by recomputing it from the
keys ("portrait-keys", whoever holds them) and by opening buckets of the set commitment ("portrait-bucket", anybody):
always for the bucket that is asked about, and for buckets drawn at random as often as many entries are missing.
"""

from __future__ import annotations

import numpy as np
import pytest

from pot.commitments.dataset import Shard, commit_digests
from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_arrays import from_bytes
from pot.commitments.setree_verify import bucket_of, key_of
from pot.data.portrait import _encode, make_portrait
from pot.data.portrait_verify import (
    Portrait,
    check_portrait,
    check_portrait_buckets,
    check_portrait_header,
    entries_of,
)
from pot.errors import Malformed

DIGESTS = [record_digest(b"record %d" % number) for number in range(3000)]
HIDDEN = key_of(DIGESTS[7])
KEYS = from_bytes(b"".join(key_of(digest) for digest in DIGESTS))
SHARD = Shard(name="s", bytes="1", records="3000", sha256="0" * 64, blake3="0" * 64)
COMMITMENT = commit_digests("training", "text/1", b"".join(DIGESTS), 1, [SHARD])
HONEST = make_portrait(COMMITMENT, KEYS, 1e-6)
BITS = int(HONEST.header.bits)
TREE = SetTree.of_keys(KEYS)


def portrait_of(entries: np.ndarray) -> Portrait:
    """What an attacker publishes: the honest header over other entries, in good form."""
    header = HONEST.header.model_copy(update={"entries": str(len(entries))})
    return Portrait.from_bytes(Portrait(header, entries, _encode(entries, int(header.rice))).to_bytes())


def forgeries() -> dict[str, np.ndarray]:
    hidden = np.searchsorted(HONEST.entries, entries_of(from_bytes(HIDDEN), BITS))
    one_gone = np.delete(HONEST.entries, hidden)
    filler = np.setdiff1d(one_gone + np.uint64(1), HONEST.entries)[:1]
    return {
        "one entry cleared": one_gone,
        "one entry replaced, so that the number stays": np.sort(np.concatenate([one_gone, filler])),
        "one entry moved to its neighbour": np.sort(np.concatenate([one_gone, HONEST.entries[hidden] ^ np.uint64(1)])),
        "built on a part": entries_of(KEYS[1000:], BITS),
    }


FORGERIES = forgeries()


@pytest.mark.parametrize("name", FORGERIES)
def test_without_a_check_the_forged_portrait_says_no(name: str) -> None:
    forged = portrait_of(FORGERIES[name])
    check_portrait_header(forged, COMMITMENT)
    assert HONEST.may_contain(HIDDEN)
    assert not forged.may_contain(HIDDEN)


@pytest.mark.parametrize("name", FORGERIES)
def test_recomputing_it_refuses_it(name: str) -> None:
    check_portrait(HONEST, COMMITMENT, KEYS)
    with pytest.raises(ProofRefused) as caught:
        check_portrait(portrait_of(FORGERIES[name]), COMMITMENT, KEYS)
    assert caught.value.code == "portrait-keys"


@pytest.mark.parametrize("name", FORGERIES)
def test_opening_the_bucket_in_question_refuses_it(name: str) -> None:
    beside = [(int.from_bytes(HIDDEN, "big") ^ 1).to_bytes(8, "big")]  # absent, and in the hidden record's bucket
    assert bucket_of(beside[0], TREE.depth) == bucket_of(HIDDEN, TREE.depth)
    proof = TREE.prove_absent(beside)
    check_portrait_buckets(HONEST, COMMITMENT, beside, proof)
    with pytest.raises(ProofRefused) as caught:
        check_portrait_buckets(portrait_of(FORGERIES[name]), COMMITMENT, beside, proof)
    assert caught.value.code == "portrait-bucket"


def test_a_random_bucket_shows_a_missing_part_but_hardly_ever_one_entry() -> None:
    """Why a passed spot check says nothing about one record: as (1 - w / B)^r says."""
    rng = np.random.default_rng(0)
    passed, codes = dict.fromkeys(("one entry cleared", "built on a part"), 0), set()
    for _ in range(200):
        asked = [rng.bytes(8)]
        proof = TREE.prove_absent(asked)
        for name in passed:
            try:
                check_portrait_buckets(portrait_of(FORGERIES[name]), COMMITMENT, asked, proof)
                passed[name] += 1
            except ProofRefused as error:
                codes.add(error.code)
    assert codes == {"portrait-bucket"}
    assert passed["one entry cleared"] >= 190
    assert passed["built on a part"] <= 60


def test_bits_flipped_in_the_file_do_not_read_or_are_refused() -> None:
    data, read = HONEST.to_bytes(), 0
    start = 8 * (len(data) - len(HONEST.stream))
    for bit in range(start, 8 * len(data), 97):
        bent = bytearray(data)
        bent[bit // 8] ^= 0x80 >> bit % 8
        try:
            forged = Portrait.from_bytes(bytes(bent))
        except Malformed:
            continue
        read += 1
        with pytest.raises(ProofRefused) as caught:
            check_portrait(forged, COMMITMENT, KEYS)
        assert caught.value.code == "portrait-keys"
    assert read


def test_the_keys_must_be_the_committed_ones() -> None:
    """A recomputation from a part of the keys would find the part's portrait right."""
    forged = portrait_of(FORGERIES["built on a part"])
    with pytest.raises(ProofRefused) as caught:
        check_portrait(forged, COMMITMENT, KEYS[1000:])
    assert caught.value.code == "portrait-set"
