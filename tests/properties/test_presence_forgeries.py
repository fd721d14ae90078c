"""No bent presence proof is ever accepted: whatever is dropped, added, moved, spliced or flipped."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from pot.commitments.hashing import record_digest
from pot.commitments.merkle import LeafTree
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.presence import prove_present
from pot.commitments.presence_verify import PROOF_MAGIC, verify_present


@st.composite
def questions(draw: st.DrawFn) -> tuple[LeafTree, list[int], list[bytes], bytes]:
    """A tree, asked indices, their digests, the honest proof."""
    size = draw(st.integers(1, 120))
    digests = [record_digest(b"%d" % number) for number in range(size)]
    built = LeafTree(np.frombuffer(b"".join(digests), np.uint8).reshape(size, 32))
    indices = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1)))
    return built, indices, [digests[index] for index in indices], prove_present(built, indices)


Question = tuple[LeafTree, list[int], list[bytes], bytes]


def accepted(built: LeafTree, size: int, digests: list[bytes], proof: bytes) -> bool:
    try:
        verify_present(built.root, size, digests, proof)
    except ProofRefused:
        return False
    return True


def parts(asked: int, proof: bytes) -> tuple[list[int], list[bytes]]:
    start = len(PROOF_MAGIC) + 8
    cut = start + 8 * asked
    indices = [int.from_bytes(proof[at : at + 8], "little") for at in range(start, cut, 8)]
    return indices, [proof[at : at + 32] for at in range(cut, len(proof), 32)]


def joined(indices: list[int], siblings: list[bytes]) -> bytes:
    numbers = b"".join(number.to_bytes(8, "little") for number in (len(indices), *indices))
    return PROOF_MAGIC + numbers + b"".join(siblings)


@given(questions())
def test_honest_proofs_hold(question: Question) -> None:
    built, indices, digests, proof = question
    assert verify_present(built.root, built.size, digests, proof) == indices
    assert joined(*parts(len(indices), proof)) == proof


@given(questions(), st.data())
def test_any_flipped_bit_is_refused(question: Question, data: st.DataObject) -> None:
    built, _, digests, proof = question
    bent = bytearray(proof)
    bit = data.draw(st.integers(0, 8 * len(bent) - 1))
    bent[bit // 8] ^= 1 << bit % 8
    assert not accepted(built, built.size, digests, bytes(bent))


@given(questions(), st.data())
def test_any_cut_repeat_or_trailing_byte_is_refused(question: Question, data: st.DataObject) -> None:
    built, _, digests, proof = question
    start = data.draw(st.integers(0, len(proof) - 1))
    stop = data.draw(st.integers(start + 1, len(proof)))
    assert not accepted(built, built.size, digests, proof[:start] + proof[stop:])
    assert not accepted(built, built.size, digests, proof[:stop] + proof[start:])
    assert not accepted(built, built.size, digests, proof + data.draw(st.binary(min_size=1, max_size=64)))


@given(questions(), st.data())
def test_a_digest_that_is_not_there_is_refused(question: Question, data: st.DataObject) -> None:
    """The forgery that matters: one of Y's records was left out, and its place is claimed with another's proof."""
    built, indices, digests, proof = question
    place = data.draw(st.integers(0, len(indices) - 1))
    stranger = data.draw(st.sampled_from([record_digest(b"stranger"), *digests]))
    assume(stranger != digests[place])
    assert not accepted(built, built.size, [*digests[:place], stranger, *digests[place + 1 :]], proof)


@given(questions(), st.data())
def test_other_indices_are_refused(question: Question, data: st.DataObject) -> None:
    built, indices, digests, proof = question
    others = sorted(data.draw(st.sets(st.integers(0, built.size - 1), min_size=len(indices), max_size=len(indices))))
    assume(others != indices)
    assert not accepted(built, built.size, digests, joined(others, parts(len(indices), proof)[1]))
    assert not accepted(built, built.size, digests, prove_present(built, others))


@given(questions(), st.data())
def test_dropped_and_added_leaves_are_refused(question: Question, data: st.DataObject) -> None:
    built, indices, digests, proof = question
    siblings = parts(len(indices), proof)[1]
    place = data.draw(st.integers(0, len(indices) - 1))
    fewer = indices[:place] + indices[place + 1 :]
    assert not accepted(built, built.size, digests, joined(fewer, siblings))
    assert not accepted(built, built.size, digests, joined([*indices, built.size], siblings))
    assert not accepted(built, built.size, [*digests, digests[-1]], joined([*indices, indices[-1]], siblings))


@given(questions(), st.data())
def test_spliced_missing_and_extra_siblings_are_refused(question: Question, data: st.DataObject) -> None:
    built, indices, digests, proof = question
    siblings = parts(len(indices), proof)[1]
    place = data.draw(st.integers(0, len(siblings)))
    extra = data.draw(st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([built.root, *siblings])))
    longer = [*siblings[:place], extra, *siblings[place:]]
    assert not accepted(built, built.size, digests, joined(indices, longer))
    assume(place < len(siblings))
    assert not accepted(built, built.size, digests, joined(indices, siblings[:place] + siblings[place + 1 :]))
    assume(siblings[place] != extra)
    spliced = [*siblings[:place], extra, *siblings[place + 1 :]]
    assert not accepted(built, built.size, digests, joined(indices, spliced))


@given(questions(), st.integers(0, 300))
def test_another_size_is_refused_where_it_changes_the_tree(question: Question, size: int) -> None:
    """A size binds through the shape: where paths stay the same, the same leaves stand at the same indices."""
    built, indices, digests, proof = question
    if size <= indices[-1]:
        assert not accepted(built, size, digests, proof)
    elif accepted(built, size, digests, proof):
        assert (size - 1).bit_length() == (built.size - 1).bit_length()
        assert verify_present(built.root, size, digests, proof) == indices


@given(st.binary(max_size=400))
def test_noise_is_refused_with_our_error_only(noise: bytes) -> None:
    digests = [record_digest(b"%d" % number) for number in range(20)]
    built = LeafTree(np.frombuffer(b"".join(digests), np.uint8).reshape(20, 32))
    assert not accepted(built, 20, digests[:3], noise)
    assert not accepted(built, 20, digests[:3], PROOF_MAGIC + (3).to_bytes(8, "little") + noise)
