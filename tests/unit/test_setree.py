"""The set tree: shape, canonical proofs, and each refusal with its own code."""

from __future__ import annotations

import subprocess
import sys
from math import floor, log2

import numpy as np
import pytest

from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.radix import deal, radix_sort
from pot.commitments.setree import BucketTree, SetTree
from pot.commitments.setree_arrays import dealt, distinct, from_bytes, to_bytes
from pot.commitments.setree_plain import SetTree as PlainTree
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
    open_buckets,
    root_hash,
    sibling_count,
    verify_absent,
)
from pot.commitments.setree_verify_batch import verify_absent_batch
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
    refused = []
    for verify, asked in ((verify_absent, keys), (verify_absent_batch, b"".join(keys))):
        with pytest.raises(ProofRefused) as caught:
            verify(tree.root, depth, count, asked, proof)
        refused.append((caught.value.code, str(caught.value) if keys and len(keys[0]) == KEY_BYTES else ""))
    assert refused[0] == refused[1]
    return refused[0][0]


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
    for verify, asked in ((verify_absent, strangers(1)), (verify_absent_batch, strangers(1)[0])):
        with pytest.raises(ProofRefused) as caught:
            verify(root, 0, 2, asked, proof)
        assert caught.value.code == "set-bucket"


def test_a_proof_that_announces_more_keys_than_it_has_is_refused() -> None:
    proof = PROOF_MAGIC + b"\xff\xff" + b"\0" * 16
    for verify, asked in ((verify_absent, strangers(1)), (verify_absent_batch, strangers(1)[0])):
        with pytest.raises(ProofRefused) as caught:
            verify(bytes(32), 0, 7, asked, proof)
        assert caught.value.code == "set-length"


def test_too_many_questions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, keys = SetTree.build(members(10)), strangers(9)
    proof = tree.prove_absent(keys)
    monkeypatch.setattr("pot.commitments.setree_verify.MAX_QUERY_KEYS", 8)
    monkeypatch.setattr("pot.commitments.setree_verify_batch.MAX_QUERY_KEYS", 8)
    monkeypatch.setattr("pot.commitments.setree.MAX_QUERY_KEYS", 8)
    with pytest.raises(LimitExceeded):
        verify_absent(tree.root, tree.depth, tree.count, keys, proof)
    with pytest.raises(LimitExceeded):
        verify_absent_batch(tree.root, tree.depth, tree.count, b"".join(keys), proof)
    with pytest.raises(LimitExceeded):
        tree.prove_absent(keys)


def test_sibling_count_is_what_the_prover_writes() -> None:
    tree = PlainTree.build(members(500))
    for asked in (1, 3, 40, 4000):
        keys = strangers(asked)
        buckets = sorted({bucket_of(key, tree.depth) for key in keys})
        proof = tree.prove_absent(keys)
        opened = sum(2 + len(tree._bucket(bucket)) for bucket in buckets)
        assert len(proof) == len(PROOF_MAGIC) + opened + 32 * sibling_count(buckets, tree.depth)


HARD = {
    "ends of the range": np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1] * 2, np.uint64),
    "one bucket": np.arange(5000, dtype=np.uint64),
    "two buckets, the first and the last": np.concatenate(
        [np.arange(300, dtype=np.uint64), np.uint64(2**64 - 1) - np.arange(300, dtype=np.uint64)]
    ),
    "repeats": np.repeat(np.random.default_rng(0).integers(0, 2**64, 700, dtype=np.uint64), 3),
    "spread": np.random.default_rng(1).integers(0, 2**64, 30_000, dtype=np.uint64),
}


def byte_keys(keys: np.ndarray) -> list[bytes]:
    joined = to_bytes(keys).tobytes()
    return [joined[at : at + KEY_BYTES] for at in range(0, len(joined), KEY_BYTES)]


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("groups", [2, 1 << 13])
def test_arrays_and_plain_python_give_the_same_bytes(name: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pot.commitments.setree._GROUPS", groups)  # also where everything is done in small parts
    keys = HARD[name]
    tree, plain = SetTree.of_keys(keys), PlainTree(sorted(set(byte_keys(keys))))
    assert (tree.root, tree.count, tree.depth) == (plain.root, plain.count, plain.depth)
    rng = np.random.default_rng(2)
    near = keys[rng.integers(0, len(keys), 40)] + np.uint64(77)
    for asked in (rng.integers(0, 2**64, 1, dtype=np.uint64), rng.integers(0, 2**64, 500, dtype=np.uint64), near):
        question = asked[~tree.contains(asked)]
        assert question.size
        proof = tree.prove_absent_keys(question)
        assert proof == plain.prove_absent(byte_keys(question)) == tree.prove_absent(byte_keys(question))
        verify_absent(tree.root, tree.depth, tree.count, byte_keys(question), proof)
        verify_absent_batch(tree.root, tree.depth, tree.count, np.concatenate([question, question[:1]]), proof)


@pytest.mark.parametrize("name", HARD)
def test_contains_finds_exactly_the_members(name: str) -> None:
    keys = HARD[name]
    tree = SetTree.of_keys(keys)
    asked = np.concatenate([keys, keys ^ np.uint64(1 << 40), keys])
    expected = np.isin(asked, keys)
    assert np.array_equal(tree.contains(asked), expected)
    assert np.array_equal(BucketTree.contains(tree, asked), expected)  # through groups, as keys in files are
    assert byte_keys(keys)[0] in tree
    assert b"short" not in tree


def test_an_opened_empty_bucket_holds() -> None:
    keys = np.arange(100, dtype=np.uint64)
    tree, asked = SetTree.of_keys(keys), np.array([1 << 63], np.uint64)
    proof = tree.prove_absent_keys(asked)
    verify_absent_batch(tree.root, tree.depth, tree.count, asked, proof)
    assert open_buckets(tree.root, tree.depth, tree.count, byte_keys(asked), proof) == {1 << (tree.depth - 1): b""}


def test_opened_buckets_are_the_sets_keys_with_that_prefix() -> None:
    digests = members(400)
    tree, keys = SetTree.build(digests), strangers(7)
    for bucket, joined in open_buckets(tree.root, tree.depth, 400, keys, tree.prove_absent(keys)).items():
        inside = sorted(key_of(d) for d in digests if bucket_of(key_of(d), tree.depth) == bucket)
        assert joined == b"".join(inside)


def test_a_bucket_too_full_to_open_is_named() -> None:
    keys = np.arange(70_000, dtype=np.uint64)
    asked = np.array([80_000], np.uint64)
    for tree in (SetTree.of_keys(keys), PlainTree(byte_keys(keys))):
        with pytest.raises(LimitExceeded, match="bucket 0 holds 70000 keys, over 65535"):
            tree.prove_absent(byte_keys(asked))


def test_keys_of_another_type_are_the_callers_mistake() -> None:
    tree, proof = SetTree.build(members(9)), SetTree.build(members(9)).prove_absent(strangers(1))
    good = np.array([1, 2], np.uint64)
    for wrong in (good.astype(np.int64), good.astype(">u8"), good.reshape(1, 2), [1, 2]):
        for call in (SetTree.of_keys, tree.contains, tree.prove_absent_keys):
            with pytest.raises(UsageError, match="one row of uint64"):
                call(wrong)
        with pytest.raises(UsageError, match="one row of uint64"):
            verify_absent_batch(tree.root, tree.depth, tree.count, wrong, proof)
    with pytest.raises(UsageError, match="fewer than 8 bytes"):
        SetTree.build([b"1234567", bytes(32)])


def test_large_questions_go_to_the_arrays_and_are_refused_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, keys = SetTree.build(members(300)), strangers(2500)
    proof = tree.prove_absent(keys)
    asked: list[int] = []

    def watched(root: bytes, depth: int, count: int, joined: bytes, given: bytes) -> None:
        asked.append(len(joined) // KEY_BYTES)
        verify_absent_batch(root, depth, count, joined, given)

    monkeypatch.setattr("pot.commitments.setree_verify._BATCH_COLD", 2000)  # whether or not it is loaded
    monkeypatch.setattr("pot.commitments.setree_verify_batch.verify_asked", watched)
    verify_absent(tree.root, tree.depth, tree.count, keys, proof)
    assert asked == [2500]
    assert code_of(tree, keys, proof[:-1]) == "set-length"
    assert code_of(tree, [*keys, key_of(members(1)[0])], proof) == "set-member"
    verify_absent(tree.root, tree.depth, tree.count, keys[:1], tree.prove_absent(keys[:1]))
    assert asked == [2500] * 2 + [2501]


WITHOUT_ARRAYS = """
import sys
class Nothing:  # stands before every finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numpy", "numba"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
from pot.commitments.setree_verify import verify_absent
from pot.commitments.merkle_verify import ProofRefused
root, depth, count, joined, proof = (bytes.fromhex(part) for part in sys.stdin.read().split())
keys = [joined[at : at + 8] for at in range(0, len(joined), 8)]
head = (root, int.from_bytes(depth, "big"), int.from_bytes(count, "big"))
verify_absent(*head, keys, proof)
try:
    verify_absent(*head, keys, proof[:-1] + bytes([proof[-1] ^ 1]))
except ProofRefused as error:
    print(error.code, "numpy" in sys.modules)
"""


def test_without_numpy_a_proof_is_verified_all_the_same() -> None:
    tree, keys = SetTree.build(members(900)), strangers(2100)
    fields = (tree.root, tree.depth.to_bytes(8, "big"), tree.count.to_bytes(8, "big"), b"".join(keys))
    given = " ".join(field.hex() for field in (*fields, tree.prove_absent(keys)))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ARRAYS], input=given, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "set-root False\n"


def test_importing_the_verifier_does_not_load_numpy() -> None:
    code = "import sys, pot.commitments.setree_verify; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("count", [0, 1, 2, 100, 40_000])
def test_sorting_by_leading_bits_is_sorting(count: int) -> None:
    keys = np.random.default_rng(count).integers(0, 2**64, count, dtype=np.uint64)
    for given in (keys, keys >> np.uint64(20), keys & np.uint64(7), keys | np.uint64(0xFFFF << 48), keys[::-1]):
        found = radix_sort(given)
        assert found is not None
        assert np.array_equal(found, np.sort(given))
        assert found is not given


def test_keys_that_are_not_spread_are_sorted_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pot.commitments.setree_arrays._RADIX_LOADED", 1)
    keys = np.random.default_rng(0).integers(0, 2**20, 20_000, dtype=np.uint64)
    keys[0] = 2**64 - 1
    before = keys.copy()
    assert radix_sort(keys) is None
    assert np.array_equal(distinct(keys), np.unique(keys))
    assert np.array_equal(keys, before)


def test_distinct_keeps_what_is_ascending_and_sorts_the_rest() -> None:
    keys = np.array([1, 5, 9], np.uint64)
    assert distinct(keys) is keys
    assert distinct(np.array([1, 5, 5, 9], np.uint64)).tolist() == [1, 5, 9]
    assert distinct(np.array([9, 1, 5, 1], np.uint64)).tolist() == [1, 5, 9]
    assert distinct(from_bytes(b"")).tolist() == []


@pytest.mark.parametrize("bits", [6, 12, 60, 64])
def test_dealing_is_the_same_with_and_without_compiled_code(bits: int) -> None:
    keys = np.random.default_rng(bits).integers(0, 2**64, 1000, dtype=np.uint64)
    plain, plain_ends = dealt(keys, bits, 6)
    compiled, compiled_ends = deal(keys, 64 - bits, 6)
    assert np.array_equal(plain, compiled)
    assert np.array_equal(plain_ends, compiled_ends)
    assert plain_ends[-1] == 1000
    start = 0
    for value, end in enumerate(plain_ends.tolist()):
        assert set(((plain[start:end] >> np.uint64(64 - bits)) & np.uint64(63)).tolist()) <= {value}
        start = end
