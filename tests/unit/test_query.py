"""One record's membership: both answers hold, and each bent answer is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pot.commitments.dataset import Shard, commit_digests
from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.data.commit import Committed
from pot.data.query import MembershipAnswer, answer, check_answer, digest_of
from pot.data.readers import Record

DIGESTS = b"".join(record_digest(b"d%d" % (number % 50)) for number in range(60))
SHARD = Shard(name="s", bytes="1", records="60", sha256="0" * 64, blake3="0" * 64)
DATA = Committed(commit_digests("training", "file/1", DIGESTS, 1, [SHARD]), DIGESTS)
MEMBER = answer(DATA, record_digest(b"d3"))
STRANGER = answer(DATA, record_digest(b"x"))


def test_both_answers_hold() -> None:
    assert (MEMBER.member, MEMBER.index, MEMBER.copies) == (True, "3", "2")
    assert (STRANGER.member, STRANGER.index, STRANGER.copies) == (False, None, None)
    check_answer(DATA.commitment, MEMBER)
    check_answer(DATA.commitment, STRANGER)
    for given in (MEMBER, STRANGER):
        assert MembershipAnswer.from_bytes(given.to_bytes(), what="answer") == given


def test_the_digest_is_that_of_the_view() -> None:
    assert digest_of(Record("r", b"d3", None), "file/1").hex() == MEMBER.record_blake3


def swapped(given: MembershipAnswer, **changes: Any) -> MembershipAnswer:
    return given.model_copy(update=changes)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (swapped(MEMBER, commitment_sha256="0" * 64), "answer-commitment"),
        (swapped(MEMBER, record_blake3=STRANGER.record_blake3), "merkle-root"),
        (swapped(MEMBER, index="4"), "merkle-root"),
        (swapped(MEMBER, index="60"), "merkle-index"),
        (swapped(MEMBER, path=MEMBER.path[1:]), "merkle-length"),
        (swapped(MEMBER, path=None), "answer-form"),
        (swapped(MEMBER, absence_base64=STRANGER.absence_base64), "answer-form"),
        (swapped(MEMBER, member=False), "answer-form"),
        (swapped(STRANGER, member=True), "answer-form"),
        (swapped(STRANGER, index="3"), "answer-form"),
        (swapped(STRANGER, absence_base64="!"), "answer-form"),
        (swapped(STRANGER, absence_base64=""), "set-length"),
        (swapped(STRANGER, record_blake3=MEMBER.record_blake3), "set-*"),
        (swapped(STRANGER, absence_base64=base64.b64encode(b"pot/absence/v1\n\0\0").decode()), "set-*"),
    ],
)
def test_bent_answers_are_refused(given: MembershipAnswer, code: str) -> None:
    with pytest.raises(ProofRefused) as caught:
        check_answer(DATA.commitment, given)
    assert caught.value.code == code or (code == "set-*" and caught.value.code.startswith("set-"))
