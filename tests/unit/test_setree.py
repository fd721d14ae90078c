"""The set tree: shape, canonical proofs, and each refusal with its own code."""

from __future__ import annotations

from math import floor, log2

import pytest

from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_verify import (
    KEY_BYTES,
    MAX_COUNT,
    MAX_DEPTH,
    PROOF_MAGIC,
    bucket_hash,
    bucket_of,
    depth_for,
    key_of,
    node_hash,
    root_hash,
    sibling_count,
    verify_absent,
)
from pot.errors import LimitExceeded, Refused, UsageError


def members(count: int) -> list[bytes]:
    return [record_digest(b"member %d" % number) for number in range(count)]


def strangers(count: int) -> list[bytes]:
    return [key_of(record_digest(b"stranger %d" % number)) for number in range(count)]


def naive_root(digests: list[bytes]) -> bytes:
    keys = sorted({digest[:8] for digest in digests})
    depth = max(0, floor(log2(len(keys) / 4))) if len(keys) >= 8 else 0
    level = [
        bucket_hash(b"".join(key for key in keys if int.from_bytes(key, "big") >> (64 - depth) == bucket))
        for bucket in range(2**depth)
    ]
    while len(level) > 1:
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return root_hash(depth, len(keys), level[0])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 63, 64, 100, 300])
def test_root_equals_the_naive_definition_and_proofs_hold(count: int) -> None:
    digests = members(count)
    tree = SetTree.build(reversed(digests))
    assert (tree.root, tree.count, tree.depth) == (naive_root(digests), count, depth_for(count))
    for asked in (1, 2, 9, 400):
        keys = strangers(asked)
        verify_absent(tree.root, tree.depth, tree.count, keys, tree.prove_absent(keys))


def test_depth_is_the_rounded_down_logarithm() -> None:
    assert [depth_for(count) for count in range(8)] == [0] * 8
    for exponent in range(3, 48):
        assert depth_for(2**exponent) == exponent - 2
        assert depth_for(2**exponent - 1) == max(0, exponent - 3)
    assert depth_for(MAX_COUNT) == MAX_DEPTH


def test_repeats_count_once_and_order_does_not_matter() -> None:
    digests = members(20)
    assert SetTree.build(digests + digests[:7]).root == SetTree.build(digests[::-1]).root
    assert SetTree.build(digests * 2).count == 20


def test_the_proof_is_canonical() -> None:
    tree, keys = SetTree.build(members(200)), strangers(30)
    assert tree.prove_absent(keys) == tree.prove_absent(keys[::-1] + keys)


def test_a_member_cannot_be_shown_absent_and_only_the_count_is_told() -> None:
    digests = members(50)
    tree = SetTree.build(digests)
    with pytest.raises(Refused, match="1 of the 2 asked keys") as caught:
        tree.prove_absent([key_of(digests[3]), *strangers(1)])
    assert digests[3].hex()[:16] not in str(caught.value)
    assert key_of(digests[3]) in tree
    assert strangers(1)[0] not in tree


def test_nothing_to_commit_to_and_nothing_asked() -> None:
    with pytest.raises(UsageError, match="no record"):
        SetTree.build([])
    with pytest.raises(UsageError, match="at least one key"):
        SetTree.build(members(3)).prove_absent([])
    with pytest.raises(UsageError, match="of 8 bytes"):
        SetTree.build(members(3)).prove_absent([b"short"])


def code_of(tree: SetTree, keys: list[bytes], proof: bytes, **header: int) -> str:
    depth, count = header.get("depth", tree.depth), header.get("count", tree.count)
    with pytest.raises(ProofRefused) as caught:
        verify_absent(tree.root, depth, count, keys, proof)
    return caught.value.code


def test_each_lie_has_its_code() -> None:
    tree, keys = SetTree.build(members(100)), strangers(5)
    proof = tree.prove_absent(keys)
    start = len(PROOF_MAGIC)
    size = int.from_bytes(proof[start : start + 2], "little")
    assert size >= 2, "the first opened bucket must hold two keys for the swap below"
    first, second = start + 2, start + 2 + KEY_BYTES
    swapped = proof[:first] + proof[second : second + 8] + proof[first:second] + proof[second + 8 :]
    foreign = proof[:first] + bytes([proof[first] ^ 0x80]) + proof[first + 1 :]
    assert code_of(tree, keys, proof, depth=tree.depth + 1) == "set-header"
    assert code_of(tree, keys, proof, count=2 * tree.count) == "set-header"
    assert code_of(tree, keys, proof, count=0, depth=0) == "set-header"
    assert code_of(tree, keys, proof, count=tree.count + 1) == "set-root"
    assert code_of(tree, [], proof) == "set-query"
    assert code_of(tree, [b"1234567"], proof) == "set-query"
    assert code_of(tree, keys, b"") == "set-length"
    assert code_of(tree, keys, proof + b"\0") == "set-length"
    assert code_of(tree, keys, proof[:-1]) == "set-length"
    assert code_of(tree, keys, proof[:-32]) == "set-length"
    assert code_of(tree, keys, b"q" + proof[1:]) == "set-length"
    assert code_of(tree, keys, swapped) == "set-bucket"
    assert code_of(tree, keys, foreign) == "set-bucket"
    assert code_of(tree, keys, proof[:-1] + bytes([proof[-1] ^ 1])) == "set-root"
    assert code_of(tree, [proof[first:second], *keys], proof) == "set-member"


def test_opening_every_bucket_must_open_every_key() -> None:
    digests = members(7)
    tree, short = SetTree.build(digests), SetTree.build(digests[:6])
    keys = strangers(1)
    assert code_of(tree, keys, short.prove_absent(keys)) == "set-count"
    assert code_of(short, keys, tree.prove_absent(keys)) == "set-count"


def test_a_bucket_with_a_key_twice_is_refused() -> None:
    key = key_of(members(1)[0])
    proof = PROOF_MAGIC + (2).to_bytes(2, "little") + key * 2
    root = root_hash(0, 2, bucket_hash(key * 2))
    with pytest.raises(ProofRefused) as caught:
        verify_absent(root, 0, 2, strangers(1), proof)
    assert caught.value.code == "set-bucket"


def test_a_proof_that_announces_more_keys_than_it_has_is_refused() -> None:
    proof = PROOF_MAGIC + b"\xff\xff" + b"\0" * 16
    with pytest.raises(ProofRefused) as caught:
        verify_absent(bytes(32), 0, 7, strangers(1), proof)
    assert caught.value.code == "set-length"


def test_too_many_questions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, keys = SetTree.build(members(10)), strangers(9)
    proof = tree.prove_absent(keys)
    monkeypatch.setattr("pot.commitments.setree_verify.MAX_QUERY_KEYS", 8)
    with pytest.raises(LimitExceeded):
        verify_absent(tree.root, tree.depth, tree.count, keys, proof)


def test_sibling_count_is_what_the_prover_writes() -> None:
    tree = SetTree.build(members(500))
    for asked in (1, 3, 40, 4000):
        keys = strangers(asked)
        buckets = sorted({bucket_of(key, tree.depth) for key in keys})
        proof = tree.prove_absent(keys)
        opened = sum(2 + len(tree._bucket(bucket)) for bucket in buckets)
        assert len(proof) == len(PROOF_MAGIC) + opened + 32 * sibling_count(buckets, tree.depth)
