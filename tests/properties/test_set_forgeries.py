"""No bent non-membership proof is ever accepted: whatever is dropped, added, moved, spliced or flipped."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.commitments.setree_plain import SetTree as PlainTree
from pot.commitments.setree_verify import (
    KEY_BYTES,
    PROOF_MAGIC,
    bucket_hash,
    bucket_of,
    depth_for,
    key_of,
    node_hash,
    root_hash,
    verify_absent,
)
from pot.commitments.setree_verify_batch import verify_absent_batch

SIZES = st.integers(1, 200)


def members(count: int) -> list[bytes]:
    return [record_digest(b"member %d" % number) for number in range(count)]


def strangers(seed: int, count: int) -> list[bytes]:
    return [key_of(record_digest(b"stranger %d %d" % (seed, number))) for number in range(count)]


def accepted(tree: SetTree, keys: list[bytes], proof: bytes) -> bool:
    return verdict(tree.root, tree.depth, tree.count, keys, proof) == ""


def verdict(root: bytes, depth: int, count: int, keys: list[bytes], proof: bytes) -> str:
    """The sentence of refusal, empty if accepted; both verifiers must say the same."""
    said = []
    for verify, asked in ((verify_absent, keys), (verify_absent_batch, b"".join(keys))):
        try:
            verify(root, depth, count, asked, proof)
            said.append("")
        except ProofRefused as error:
            said.append(f"{error.code}: {error}")
    assert said[0] == said[1]
    return said[0]


def opened(tree: SetTree, keys: list[bytes], proof: bytes) -> tuple[list[list[bytes]], bytes]:
    """The proof taken apart: the keys of each opened bucket, and the sibling hashes."""
    offset, buckets = len(PROOF_MAGIC), []
    for _ in {bucket_of(key, tree.depth) for key in keys}:
        size = int.from_bytes(proof[offset : offset + 2], "little")
        body = proof[offset + 2 : offset + 2 + KEY_BYTES * size]
        buckets.append([body[start : start + KEY_BYTES] for start in range(0, len(body), KEY_BYTES)])
        offset += 2 + len(body)
    return buckets, proof[offset:]


def joined(buckets: list[list[bytes]], siblings: bytes) -> bytes:
    parts = [len(bucket).to_bytes(2, "little") + b"".join(bucket) for bucket in buckets]
    return PROOF_MAGIC + b"".join(parts) + siblings


@given(SIZES, st.integers(0, 99), st.integers(1, 40))
def test_honest_proofs_hold(size: int, seed: int, asked: int) -> None:
    tree, keys = SetTree.build(members(size)), strangers(seed, asked)
    proof = tree.prove_absent(keys)
    assert accepted(tree, keys, proof)
    assert joined(*opened(tree, keys, proof)) == proof


@given(SIZES, st.integers(0, 99), st.integers(1, 20), st.data())
def test_any_flipped_bit_is_refused(size: int, seed: int, asked: int, data: st.DataObject) -> None:
    tree, keys = SetTree.build(members(size)), strangers(seed, asked)
    proof = bytearray(tree.prove_absent(keys))
    bit = data.draw(st.integers(0, 8 * len(proof) - 1))
    proof[bit // 8] ^= 1 << bit % 8
    assert not accepted(tree, keys, bytes(proof))


@given(SIZES, st.integers(0, 99), st.integers(1, 20), st.data())
def test_any_cut_repeat_or_trailing_byte_is_refused(size: int, seed: int, asked: int, data: st.DataObject) -> None:
    tree, keys = SetTree.build(members(size)), strangers(seed, asked)
    proof = tree.prove_absent(keys)
    start = data.draw(st.integers(0, len(proof) - 1))
    stop = data.draw(st.integers(start + 1, len(proof)))
    assert not accepted(tree, keys, proof[:start] + proof[stop:])
    assert not accepted(tree, keys, proof[:stop] + proof[start:])
    assert not accepted(tree, keys, proof + data.draw(st.binary(min_size=1, max_size=64)))


@given(st.integers(2, 200), st.data())
def test_a_member_dropped_from_its_bucket_is_refused(size: int, data: st.DataObject) -> None:
    """The forgery that matters: X is in the data, the prover hides it and recounts."""
    digests = members(size)
    tree = SetTree.build(digests)
    hidden = key_of(data.draw(st.sampled_from(digests)))
    honest = [key_of(digest) for digest in digests if key_of(digest) != hidden]
    bucket = [key for key in honest if bucket_of(key, tree.depth) == bucket_of(hidden, tree.depth)]
    siblings = b"".join(PlainTree.build(digests)._siblings([bucket_of(hidden, tree.depth)]))
    assert not accepted(tree, [hidden], joined([sorted(bucket)], siblings))
    smaller = SetTree.build([digest for digest in digests if key_of(digest) != hidden])
    assert not accepted(tree, [hidden], smaller.prove_absent([hidden]))


@given(SIZES, st.integers(0, 99), st.integers(1, 20), st.data())
def test_dropped_added_and_moved_keys_are_refused(size: int, seed: int, asked: int, data: st.DataObject) -> None:
    tree, keys = SetTree.build(members(size)), strangers(seed, asked)
    buckets, siblings = opened(tree, keys, tree.prove_absent(keys))
    place = data.draw(st.integers(0, len(buckets) - 1))
    added = [list(bucket) for bucket in buckets]
    added[place] = sorted([*added[place], data.draw(st.binary(min_size=8, max_size=8))])
    assert not accepted(tree, keys, joined(added, siblings))
    assume(buckets[place])
    dropped = [list(bucket) for bucket in buckets]
    key = dropped[place].pop(data.draw(st.integers(0, len(dropped[place]) - 1)))
    assert not accepted(tree, keys, joined(dropped, siblings))
    other = data.draw(st.integers(0, len(buckets) - 1))
    if other != place:
        moved = [list(bucket) for bucket in dropped]
        moved[other] = sorted([*moved[other], key])
        assert not accepted(tree, keys, joined(moved, siblings))


@given(SIZES, st.integers(0, 99), st.integers(1, 20), st.data())
def test_spliced_missing_and_extra_siblings_are_refused(size: int, seed: int, asked: int, data: st.DataObject) -> None:
    tree, keys = SetTree.build(members(size)), strangers(seed, asked)
    buckets, siblings = opened(tree, keys, tree.prove_absent(keys))
    hashes = [siblings[start : start + 32] for start in range(0, len(siblings), 32)]
    place = data.draw(st.integers(0, len(hashes)))
    extra = data.draw(st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([tree.root, *hashes])))
    assert not accepted(tree, keys, joined(buckets, b"".join([*hashes[:place], extra, *hashes[place:]])))
    assume(place < len(hashes))
    assert not accepted(tree, keys, joined(buckets, b"".join([*hashes[:place], *hashes[place + 1 :]])))
    assume(hashes[place] != extra)
    assert not accepted(tree, keys, joined(buckets, b"".join([*hashes[:place], extra, *hashes[place + 1 :]])))


@given(SIZES, st.integers(0, 99), st.integers(-3, 60), st.integers(-3, 300))
def test_another_depth_or_count_is_refused(size: int, seed: int, depth: int, count: int) -> None:
    tree, keys = SetTree.build(members(size)), strangers(seed, 5)
    assume((depth, count) != (tree.depth, tree.count))
    proof = tree.prove_absent(keys)
    with pytest.raises(ProofRefused):
        verify_absent(tree.root, depth, count, keys, proof)


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 99))
def test_a_proof_of_another_set_is_refused(size: int, other: int, seed: int) -> None:
    assume(size != other)
    tree, foreign, keys = SetTree.build(members(size)), SetTree.build(members(other)), strangers(seed, 5)
    assert not accepted(tree, keys, foreign.prove_absent(keys))


@given(SIZES, st.integers(0, 99))
def test_a_proof_answers_no_other_question_outside_its_buckets(size: int, seed: int) -> None:
    tree, keys = SetTree.build(members(size)), strangers(seed, 3)
    others = strangers(seed + 1000, 30)
    proof = tree.prove_absent(keys)
    outside = {bucket_of(key, tree.depth) for key in others} != {bucket_of(key, tree.depth) for key in keys}
    assert accepted(tree, others, proof) is not outside


@given(st.binary(max_size=400))
def test_noise_is_refused_with_our_error_only(noise: bytes) -> None:
    tree, keys = SetTree.build(members(20)), strangers(0, 3)
    assert not accepted(tree, keys, noise)
    assert not accepted(tree, keys, PROOF_MAGIC + noise)


def test_a_prover_who_sorts_wrongly_gains_nothing() -> None:
    """A root built with a key in a foreign bucket cannot be used to show that key absent from its own bucket."""
    digests = members(16)
    depth = depth_for(16)
    keys = sorted(key_of(digest) for digest in digests)
    hidden = keys[0]
    buckets = [[key for key in keys if bucket_of(key, depth) == number] for number in range(2**depth)]
    buckets[0].remove(hidden)
    buckets[-1] = sorted([*buckets[-1], hidden])
    level = [bucket_hash(b"".join(bucket)) for bucket in buckets]
    while len(level) > 1:
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    root = root_hash(depth, 16, level[0])
    siblings = [bucket_hash(b"".join(buckets[1])), node_hash(*(bucket_hash(b"".join(b)) for b in buckets[2:]))]
    forged = joined([buckets[0]], b"".join(siblings))
    # such a root commits to nobody's records: it verifies, and only the tie to the digests (A31) refuses it
    verify_absent(root, depth, 16, [hidden], forged)
    assert root != SetTree.build(digests).root
    every = joined(buckets, b"")
    with pytest.raises(ProofRefused) as caught:
        verify_absent(root, depth, 16, [hidden, *strangers(0, 60)], every)
    assert caught.value.code == "set-bucket"
