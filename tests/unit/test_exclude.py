"""Exclusion: honest outcomes, and each refusal of the check with its code."""

from __future__ import annotations

import pytest

from pot.commitments.dataset import DatasetCommitment, Role, Shard, commit_digests
from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.data.commit import Committed
from pot.data.exclude import Overlap, exclude
from pot.data.exclude_verify import Exclusion, check_exclusion, read_exclusion
from pot.errors import LimitExceeded, Malformed, Refused, UsageError


def committed(names: list[str], role: Role, view: str = "json/1") -> Committed:
    digests = b"".join(record_digest(name.encode()) for name in names)
    shard = Shard(name="s", bytes="1", records=str(len(names)), sha256="0" * 64, blake3="0" * 64)
    return Committed(commit_digests(role, view, digests, 1, [shard]), digests)


TRAINING = committed([f"d{n}" for n in range(100)] + ["d0"], "training")
OUT = committed([f"x{n}" for n in range(20)], "exclusion")
IN = committed([f"x{n}" for n in range(17)] + ["d1", "d5", "d1"], "exclusion")


def file_of(training: Committed = TRAINING, exclusion: Committed = OUT) -> bytes:
    result = exclude(training, exclusion)
    assert isinstance(result, Exclusion)
    return result.to_bytes()


def refusal(d: DatasetCommitment, x: DatasetCommitment, digests: bytes, file: bytes) -> str:
    with pytest.raises(ProofRefused) as caught:
        check_exclusion(d, x, digests, file)
    return caught.value.code


def test_x_is_out() -> None:
    file = file_of()
    check_exclusion(TRAINING.commitment, OUT.commitment, OUT.listing, file)
    assert read_exclusion(file).to_bytes() == file


def test_x_is_not_out_and_each_of_its_records_counts() -> None:
    assert exclude(TRAINING, IN) == Overlap(3, [17, 18, 19], [1, 5])


def test_each_lie_has_its_code() -> None:
    d, x, file = TRAINING.commitment, OUT.commitment, file_of()
    other = committed(["y"], "exclusion")
    cases = [
        ("role-mismatch", (x, x, OUT.listing, file)),
        ("role-mismatch", (d, d, TRAINING.listing, file)),
        ("view-mismatch", (d, x.model_copy(update={"view": "pixels/1"}), OUT.listing, file)),
        ("x-digests", (d, x, OUT.listing[:-32], file)),
        ("x-digests", (d, x, other.listing, file)),
        ("x-digests", (d, x, b"", file)),
        ("proof", (d, other.commitment, other.listing, file)),
        ("proof", (committed(["z"], "training").commitment, x, OUT.listing, file)),
        ("proof", (d, x, OUT.listing, file[:-1])),
        ("proof", (d, x, OUT.listing, file + b"\0")),
        ("proof", (d, x, OUT.listing, file[:-1] + bytes([file[-1] ^ 1]))),
        ("proof", (d, x, OUT.listing, file.split(b"\n")[0] + b"\n")),
    ]
    for code, arguments in cases:
        assert refusal(*arguments) == code


def test_an_empty_x_is_refused() -> None:
    records = OUT.commitment.records.model_copy(update={"count": "0"})
    empty = OUT.commitment.model_copy(update={"records": records})
    assert refusal(TRAINING.commitment, empty, b"", file_of()) == "empty-x"


@pytest.mark.parametrize("data", [b"", b"{}", b"{}\n", b"\n", b"x" * 5000, b'{"version":"pot/exclusion/v2"}\nx'])
def test_a_file_without_its_header_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_exclusion(data)


def test_an_oversized_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pot.data.exclude_verify.MAX_EXCLUSION_BYTES", 100)
    with pytest.raises(LimitExceeded):
        read_exclusion(file_of())


def test_swapped_roles_views_and_empty_sets_are_told_apart() -> None:
    for d, x, words in (
        (OUT, OUT, "training data first"),
        (TRAINING, TRAINING, "--as-exclusion"),
        (TRAINING, committed(["a"], "exclusion", "file/1"), "--view json/1"),
        (TRAINING, Committed(OUT.commitment, b""), "no record"),
    ):
        with pytest.raises(UsageError, match=words):
            exclude(d, x)


def test_a_shared_key_of_two_different_records_is_neither_overlap_nor_absence() -> None:
    digest = TRAINING.listing[:8] + bytes(24)
    shard = Shard(name="s", bytes="1", records="1", sha256="0" * 64, blake3="0" * 64)
    colliding = Committed(commit_digests("exclusion", "json/1", digest, 1, [shard]), digest)
    with pytest.raises(Refused, match="share their 8-byte key"):
        exclude(TRAINING, colliding)


def test_digests_that_are_not_the_commitments_are_noticed_before_anything_is_written() -> None:
    with pytest.raises(Refused, match="digest list: 3168 bytes, expected 3232"):
        exclude(Committed(TRAINING.commitment, TRAINING.listing[:-64]), OUT)
