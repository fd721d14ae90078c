"""A31: the set commitment leaves out the records that X asks for, while the ordered commitment holds them.

From the commitment alone nobody can see it; whoever has the digests does, because both roots are recomputed from one
list. That recomputation is the link "set and ordered commitment hold the same records", by audit for training data.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pot.commitments.dataset import Shard, check_digests, commit_digests
from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_verify import key_of, verify_absent
from pot.data.commit import Committed, load_committed, write_committed
from pot.errors import Malformed

DIGESTS = [record_digest(b"%d" % number) for number in range(40)]
HIDDEN = DIGESTS[7]


def commitment_of(digests: list[bytes]) -> Committed:
    shard = Shard(name="s", bytes="1", records=str(len(digests)), sha256="0" * 64, blake3="0" * 64)
    data = b"".join(digests)
    return Committed(commit_digests("training", "json/1", data, 1, [shard]), data)


HONEST = commitment_of(DIGESTS)
WITHOUT = commitment_of([digest for digest in DIGESTS if digest != HIDDEN])
FORGED = HONEST.commitment.model_copy(update={"set": WITHOUT.commitment.set})


def test_the_forged_set_shows_the_hidden_record_absent() -> None:
    """What makes the attack worth catching."""
    tree = SetTree.build(digest for digest in DIGESTS if digest != HIDDEN)
    keys = [key_of(HIDDEN)]
    verify_absent(bytes.fromhex(FORGED.set.root_blake3), tree.depth, tree.count, keys, tree.prove_absent(keys))


def test_recomputing_both_roots_refuses_it() -> None:
    check_digests(HONEST.commitment, HONEST.listing)
    with pytest.raises(ProofRefused) as caught:
        check_digests(FORGED, HONEST.listing)
    assert caught.value.code == "digests-set"


def test_a_record_swapped_so_that_the_count_stays_is_refused() -> None:
    other = commitment_of([digest if digest != HIDDEN else bytes(32) for digest in DIGESTS])
    forged = HONEST.commitment.model_copy(update={"set": other.commitment.set})
    assert forged.set.count == HONEST.commitment.set.count
    with pytest.raises(ProofRefused) as caught:
        check_digests(forged, HONEST.listing)
    assert caught.value.code == "digests-set"
    with pytest.raises(ProofRefused) as caught:
        check_digests(forged, other.listing)
    assert caught.value.code == "digests-records"


def test_it_does_not_load(tmp_path: Path) -> None:
    write_committed(Committed(FORGED, HONEST.listing), tmp_path / "C.json")
    with pytest.raises(Malformed, match="is not the digest list"):
        load_committed(tmp_path / "C.json")
