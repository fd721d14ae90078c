"""A30: an exclusion shown against a wrong or empty X, or against digests that could never match."""

from __future__ import annotations

import pytest

from pot.commitments.dataset import DatasetCommitment, Role, Shard, commit_digests
from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.data.commit import Committed
from pot.data.exclude import Overlap, exclude
from pot.data.exclude_verify import Exclusion, check_exclusion
from pot.errors import UsageError


def committed(names: list[str], role: Role, view: str = "json/1") -> Committed:
    digests = b"".join(record_digest(name.encode()) for name in names)
    shard = Shard(name="s", bytes="1", records=str(len(names)), sha256="0" * 64, blake3="0" * 64)
    return Committed(commit_digests(role, view, digests, 1, [shard]), digests)


TRAINING = committed([f"d{n}" for n in range(60)], "training")
X1 = committed([f"x{n}" for n in range(10)], "exclusion")
X2 = committed([f"x{n}" for n in range(9)] + ["d5"], "exclusion")


def file_for(x: Committed) -> bytes:
    result = exclude(TRAINING, x)
    assert isinstance(result, Exclusion)
    return result.to_bytes()


def refusal(x: DatasetCommitment, digests: bytes, file: bytes) -> str:
    with pytest.raises(ProofRefused) as caught:
        check_exclusion(TRAINING.commitment, x, digests, file)
    return caught.value.code


def test_x2_holds_a_training_record_and_no_file_is_made() -> None:
    assert exclude(TRAINING, X2) == Overlap(1, [9], [5])


def test_x1s_file_sold_as_x2s() -> None:
    file = file_for(X1)
    assert refusal(X2.commitment, X2.listing, file) == "proof"
    assert refusal(X2.commitment, X1.listing, file) == "x-digests"
    renamed = file.replace(X1.commitment.sha256().encode(), X2.commitment.sha256().encode())
    assert renamed != file
    assert refusal(X2.commitment, X2.listing, renamed) == "proof"


def test_part_of_x_left_out_of_the_list() -> None:
    part = committed([f"x{n}" for n in range(9)], "exclusion")
    assert refusal(X2.commitment, part.listing, file_for(part)) == "x-digests"


def test_an_empty_x() -> None:
    with pytest.raises(UsageError):
        committed([], "exclusion")
    with pytest.raises(UsageError, match="no record"):
        exclude(TRAINING, Committed(X1.commitment, b""))
    value = X1.commitment.model_dump()
    value["records"]["count"] = value["set"]["count"] = value["set"]["depth"] = "0"
    value["shards"] = []
    empty = DatasetCommitment.from_value(value, what="X")
    assert refusal(empty, b"", file_for(X1)) == "empty-x"


def test_x_of_another_view_could_never_match() -> None:
    other = committed(["d5"], "exclusion", "file/1")
    with pytest.raises(UsageError, match="commit X with --view json/1"):
        exclude(TRAINING, other)
    relabelled = Committed(other.commitment.model_copy(update={"view": "json/1"}), other.listing)
    assert exclude(TRAINING, relabelled) == Overlap(1, [0], [5])
    assert refusal(other.commitment, other.listing, file_for(X1)) == "view-mismatch"


def test_training_data_sold_as_x() -> None:
    other = committed(["y"], "training")
    assert refusal(other.commitment, other.listing, file_for(X1)) == "role-mismatch"
