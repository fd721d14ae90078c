"""A26: records beyond the declared count; an odd leaf doubled to fill a level."""

from __future__ import annotations

import pytest

from pot.commitments.dataset import DatasetCommitment, Shard, check_digests, commit_digests
from pot.commitments.hashing import BLAKE3, SHA256, record_digest
from pot.commitments.merkle import MerkleTree, merkle_root
from pot.commitments.merkle_verify import ProofRefused, verify_inclusion
from pot.errors import Malformed

DIGESTS = b"".join(record_digest(b"%d" % number) for number in range(11))


def honest(digests: bytes = DIGESTS) -> DatasetCommitment:
    shard = Shard(name="s", bytes="1", records=str(len(digests) // 32), sha256="0" * 64, blake3="0" * 64)
    return commit_digests("training", "json/1", digests, 1, [shard])


def test_an_extra_record_is_no_record_of_the_commitment() -> None:
    extra = MerkleTree([DIGESTS[i : i + 32] for i in range(0, len(DIGESTS), 32)] + [bytes(32)], BLAKE3)
    with pytest.raises(ProofRefused) as caught:
        verify_inclusion(extra.leaf_hash(11), 11, 11, extra.inclusion_path(11), extra.root, BLAKE3)
    assert caught.value.code == "merkle-index"


def test_a_longer_list_under_the_declared_count_is_refused() -> None:
    with pytest.raises(ProofRefused) as caught:
        check_digests(honest(), DIGESTS + bytes(32))
    assert caught.value.code == "digests-length"


def test_a_smaller_declared_count_with_the_full_root_is_refused() -> None:
    full, short = honest(), honest(DIGESTS[:-32])
    records = short.records.model_copy(update={"root_blake3": full.records.root_blake3})
    with pytest.raises(ProofRefused) as caught:
        check_digests(short.model_copy(update={"records": records}), DIGESTS[:-32])
    assert caught.value.code == "digests-records"


def test_a_count_that_the_shards_do_not_add_up_to_is_malformed() -> None:
    value = honest().model_dump()
    value["records"]["count"] = "12"
    with pytest.raises(Malformed, match="do not add up"):
        DatasetCommitment.from_value(value, what="C")


@pytest.mark.parametrize("size", [1, 3, 5, 7, 11, 13])
def test_doubling_the_odd_leaf_makes_another_root(size: int) -> None:
    items = [b"%d" % number for number in range(size)]
    for hasher in (SHA256, BLAKE3):
        assert merkle_root([*items, items[-1]], hasher) != merkle_root(items, hasher)
