"""Inclusion: honest outcomes, and each refusal of the check with its code."""

from __future__ import annotations

import random

import pytest

from pot.commitments.dataset import DatasetCommitment, Role, Shard, commit_digests
from pot.commitments.hashing import record_digest
from pot.commitments.merkle_verify import ProofRefused
from pot.data.commit import Committed
from pot.data.include import Missing, include
from pot.data.include_verify import Inclusion, check_inclusion, read_inclusion
from pot.errors import LimitExceeded, Malformed, Refused, UsageError


def committed(names: list[str], role: Role, view: str = "json/1") -> Committed:
    digests = b"".join(record_digest(name.encode()) for name in names)
    shard = Shard(name="s", bytes="1", records=str(len(names)), sha256="0" * 64, blake3="0" * 64)
    return Committed(commit_digests(role, view, digests, 1, [shard]), digests)


TRAINING = committed([f"d{n}" for n in range(100)] + ["d7"], "training")
IN = committed(["d40", "d7", "d99", "d7", "d0"], "inclusion")
NOT_IN = committed(["d40", "y1", "d99", "y2", "y1"], "inclusion")
HIDING = {"method": "blake3-keyed/1", "id": "0" * 64}


def file_of(training: Committed = TRAINING, inclusion: Committed = IN) -> bytes:
    result = include(training, inclusion)
    assert isinstance(result, Inclusion)
    return result.to_bytes()


def refusal(d: DatasetCommitment, y: DatasetCommitment, digests: bytes, file: bytes) -> str:
    with pytest.raises(ProofRefused) as caught:
        check_inclusion(d, y, digests, file)
    return caught.value.code


def test_y_is_in_and_each_distinct_record_has_its_first_index() -> None:
    file = file_of()
    assert check_inclusion(TRAINING.commitment, IN.commitment, IN.listing, file) == [40, 7, 99, 0]
    assert read_inclusion(file).to_bytes() == file


def test_any_choice_of_records_is_shown_at_its_indices() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        numbers = rng.sample(range(100), rng.randint(1, 100))
        asked = committed([f"d{n}" for n in numbers], "inclusion")
        assert (
            check_inclusion(TRAINING.commitment, asked.commitment, asked.listing, file_of(TRAINING, asked)) == numbers
        )


def test_y_is_not_all_in_and_each_of_its_records_counts() -> None:
    assert include(TRAINING, NOT_IN) == Missing(3, [1, 3, 4])


def test_each_lie_has_its_code() -> None:
    d, y, file = TRAINING.commitment, IN.commitment, file_of()
    other = committed(["d1"], "inclusion")
    header, body = file.split(b"\n", 1)
    swapped = body[4:8] + body[:4] + body[8:]
    doubled = body[:4] + body[:4] + body[8:]
    cases = [
        ("role-mismatch", (y, y, IN.listing, file)),
        ("role-mismatch", (d, d, TRAINING.listing, file)),
        ("view-mismatch", (d, y.model_copy(update={"view": "pixels/1"}), IN.listing, file)),
        ("y-digests", (d, y, IN.listing[:-32], file)),
        ("y-digests", (d, y, other.listing, file)),
        ("y-digests", (d, y, b"", file)),
        ("proof", (d, other.commitment, other.listing, file)),
        ("proof", (committed(["z"], "training").commitment, y, IN.listing, file)),
        ("proof", (d, y, IN.listing, file[:-1])),
        ("proof", (d, y, IN.listing, file + b"\0")),
        ("proof", (d, y, IN.listing, file[:-1] + bytes([file[-1] ^ 1]))),
        ("proof", (d, y, IN.listing, header + b"\n")),
        ("proof", (d, y, IN.listing, header + b"\n" + body[:15])),
        ("proof", (d, y, IN.listing, header + b"\n" + swapped)),
        ("proof", (d, y, IN.listing, header + b"\n" + doubled)),
        ("proof", (d, y, IN.listing, header + b"\n" + b"\xff\xff\xff\xff" + body[4:])),
    ]
    for code, arguments in cases:
        assert refusal(*arguments) == code


def test_a_record_that_is_missing_cannot_be_claimed_with_the_proof_of_another() -> None:
    """A developer who did not use "y1" shows "d1" in its place: the digest list is Y's, so its leaf must be there."""
    honest = committed(["d40", "d1"], "inclusion")
    claimed = committed(["d40", "y1"], "inclusion")
    header = {"training_sha256": TRAINING.commitment.sha256(), "inclusion_sha256": claimed.commitment.sha256()}
    parts = read_inclusion(file_of(TRAINING, honest))
    forged = Inclusion(parts.header.model_copy(update=header), parts.body).to_bytes()
    assert refusal(TRAINING.commitment, claimed.commitment, claimed.listing, forged) == "proof"


def test_views_with_many_keys_a_record_show_no_presence() -> None:
    d, y = (c.commitment.model_copy(update={"view": "tiles50/1"}) for c in (TRAINING, IN))
    assert refusal(d, y, IN.listing, file_of()) == "view-mismatch"
    with pytest.raises(UsageError, match="many keys"):
        include(Committed(d, TRAINING.listing), Committed(y, IN.listing))


def test_sides_hidden_under_different_keys_are_refused() -> None:
    hidden = DatasetCommitment.from_value({**IN.commitment.model_dump(exclude_none=True), "hiding": HIDING}, what="Y")
    assert refusal(TRAINING.commitment, hidden, IN.listing, file_of()) == "hiding-mismatch"
    with pytest.raises(UsageError, match="same key"):
        include(TRAINING, Committed(hidden, IN.listing))


def test_an_empty_y_is_refused() -> None:
    records = IN.commitment.records.model_copy(update={"count": "0"})
    empty = IN.commitment.model_copy(update={"records": records})
    assert refusal(TRAINING.commitment, empty, b"", file_of()) == "empty-y"


@pytest.mark.parametrize("data", [b"", b"{}", b"{}\n", b"\n", b"x" * 5000, b'{"version":"pot/inclusion/v2"}\nx'])
def test_a_file_without_its_header_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_inclusion(data)


def test_an_oversized_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pot.data.include_verify.MAX_INCLUSION_BYTES", 100)
    with pytest.raises(LimitExceeded):
        read_inclusion(file_of())


def test_swapped_roles_views_and_empty_sets_are_told_apart() -> None:
    for d, y, words in (
        (IN, IN, "training data first"),
        (TRAINING, TRAINING, "--as-inclusion"),
        (TRAINING, committed(["a"], "inclusion", "file/1"), "--view json/1"),
        (TRAINING, Committed(IN.commitment, b""), "no record"),
    ):
        with pytest.raises(UsageError, match=words):
            include(d, y)


def test_a_shared_key_of_two_different_records_is_no_presence() -> None:
    digest = TRAINING.listing[:8] + bytes(24)
    shard = Shard(name="s", bytes="1", records="1", sha256="0" * 64, blake3="0" * 64)
    near = Committed(commit_digests("inclusion", "json/1", digest, 1, [shard]), digest)
    assert include(TRAINING, near) == Missing(1, [0])


def test_digests_that_are_not_the_commitments_are_noticed_before_anything_is_written() -> None:
    changed = Committed(TRAINING.commitment, TRAINING.listing[:-32] + bytes(32))
    with pytest.raises(Refused, match="do not belong"):
        include(changed, IN)
