"""Presence proofs: equal to single inclusion paths put together, over all small trees; each refusal with its code."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from pot.commitments.hashing import BLAKE3, record_digest
from pot.commitments.merkle import LeafTree
from pot.commitments.merkle_plain import MerkleTree
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.presence import prove_present
from pot.commitments.presence_verify import PROOF_MAGIC, sibling_count, verify_present
from pot.errors import LimitExceeded, UsageError


def digests(count: int) -> list[bytes]:
    return [record_digest(b"%d" % number) for number in range(count)]


def tree(count: int) -> LeafTree:
    return LeafTree(np.frombuffer(b"".join(digests(count)), np.uint8).reshape(count, 32))


def expected_siblings(count: int, indices: list[int]) -> list[bytes]:
    """The needed hashes by another road: all inclusion paths, less what the asked leaves give."""
    plain = MerkleTree(digests(count), BLAKE3)
    known, level, found = set(indices), plain._levels[0], []
    for height, level in enumerate(plain._levels[:-1]):
        nodes = {index >> height for index in indices}
        needed = sorted({node ^ 1 for node in nodes} - nodes)
        found += [level[node] for node in needed if node < len(level)]
    assert known
    return found


def test_all_questions_of_all_small_trees() -> None:
    for count in range(1, 9):
        built, leaves = tree(count), digests(count)
        for asked in range(1, count + 1):
            for indices in combinations(range(count), asked):
                proof = prove_present(built, indices)
                assert verify_present(built.root, count, [leaves[i] for i in indices], proof) == list(indices)
                head = PROOF_MAGIC + b"".join(number.to_bytes(8, "little") for number in (asked, *indices))
                siblings = expected_siblings(count, list(indices))
                assert proof == head + b"".join(siblings)
                assert sibling_count(indices, count) == len(siblings)


@pytest.mark.parametrize("count", [*range(9, 70), 127, 128, 129, 1000])
def test_one_leaf_is_shown_by_its_inclusion_path(count: int) -> None:
    built = tree(count)
    for index in {0, 1, count // 2, count - 2, count - 1}:
        proof = prove_present(built, [index])
        assert proof[len(PROOF_MAGIC) + 16 :] == b"".join(built.inclusion_path(index))


def refusal(root: bytes, size: int, leaves: list[bytes], proof: bytes) -> str:
    with pytest.raises(ProofRefused) as caught:
        verify_present(root, size, leaves, proof)
    return caught.value.code


def test_each_lie_has_its_code() -> None:
    built, leaves = tree(11), digests(11)
    asked, proof = [leaves[2], leaves[3], leaves[10]], prove_present(built, [2, 3, 10])
    head, indices = PROOF_MAGIC + (3).to_bytes(8, "little"), [2, 3, 10]
    rest = proof[len(head) + 24 :]

    def with_indices(*numbers: int) -> bytes:
        return head + b"".join(number.to_bytes(8, "little") for number in numbers) + rest

    assert with_indices(*indices) == proof
    cases = [
        ("presence-query", (built.root, 11, [], proof)),
        ("presence-query", (built.root, 11, [leaves[2], leaves[3], b"short"], proof)),
        ("presence-length", (built.root, 11, asked[:2], proof)),
        ("presence-length", (built.root, 11, asked, b"")),
        ("presence-length", (built.root, 11, asked, PROOF_MAGIC)),
        ("presence-length", (built.root, 11, asked, b"pot/absence/v1\n\n" + proof[16:])),
        ("presence-length", (built.root, 11, asked, proof[: len(head) + 20])),
        ("presence-length", (built.root, 11, asked, proof[:-1])),
        ("presence-length", (built.root, 11, asked, proof + bytes(32))),
        ("presence-index", (built.root, 0, asked, proof)),
        ("presence-index", (built.root, 2**63 + 1, asked, proof)),
        ("presence-index", (built.root, 10, asked, proof)),
        ("presence-index", (built.root, 11, asked, with_indices(3, 2, 10))),
        ("presence-index", (built.root, 11, asked, with_indices(2, 2, 10))),
        ("presence-index", (built.root, 11, asked, with_indices(2, 3, 2**64 - 1))),
        ("presence-root", (built.root, 11, [asked[1], asked[0], asked[2]], proof)),
        ("presence-root", (built.root, 11, asked, with_indices(4, 5, 10))),
        ("presence-root", (built.root, 11, asked, proof[:-1] + bytes([proof[-1] ^ 1]))),
        ("presence-root", (b"", 11, asked, proof)),
    ]
    for code, arguments in cases:
        assert refusal(*arguments) == code, arguments[1:]


def test_too_many_digests_are_refused_before_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pot.commitments.presence_verify.MAX_QUERY_LEAVES", 2)
    monkeypatch.setattr("pot.commitments.presence.MAX_QUERY_LEAVES", 2)
    with pytest.raises(LimitExceeded):
        verify_present(tree(5).root, 5, digests(3), b"")
    with pytest.raises(LimitExceeded):
        prove_present(tree(5), [0, 1, 2])


@pytest.mark.parametrize("indices", [[], [-1], [5], [2, 1], [1, 1]])
def test_a_question_that_makes_no_sense(indices: list[int]) -> None:
    with pytest.raises(UsageError):
        prove_present(tree(5), indices)


def test_verification_needs_no_numpy() -> None:
    script = "import sys, pot.commitments.presence_verify; print('numpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
