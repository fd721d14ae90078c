"""Dataset commitments: the document's own arithmetic, and the tie between its two roots."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pot.commitments.dataset import DatasetCommitment, Shard, check_digests, commit_digests
from pot.commitments.hashing import BLAKE3, record_digest
from pot.commitments.merkle import merkle_root
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.setree import SetTree
from pot.errors import LimitExceeded, Malformed, UsageError

DIGESTS = [record_digest(b"%d" % number) for number in range(20)]
LIST = b"".join(DIGESTS)


def shard(records: int, name: str = "a.jsonl") -> Shard:
    return Shard(name=name, bytes="100", records=str(records), sha256="0" * 64, blake3="1" * 64)


def made(digests: bytes = LIST) -> DatasetCommitment:
    return commit_digests("training", "json/1", digests, 100, [shard(len(digests) // 32)])


def test_both_roots_cover_the_records() -> None:
    commitment = made()
    assert commitment.records.root_blake3 == merkle_root(DIGESTS, BLAKE3).hex()
    assert commitment.set.root_blake3 == SetTree.build(DIGESTS).root.hex()
    assert (commitment.records.count, commitment.set.count, commitment.set.depth) == ("20", "20", "2")
    check_digests(commitment, LIST)


def test_the_document_reads_back_and_names_itself() -> None:
    commitment = made()
    assert DatasetCommitment.from_bytes(commitment.to_bytes(), what="C") == commitment
    assert commitment.sha256() != made(LIST[32:]).sha256()


def test_repeats_stay_in_the_order_and_count_once_in_the_set() -> None:
    commitment = made(LIST + DIGESTS[0] + DIGESTS[0])
    assert (commitment.records.count, commitment.set.count) == ("22", "20")
    check_digests(commitment, LIST + DIGESTS[0] * 2)


def test_no_record_or_a_partial_digest_is_refused() -> None:
    for digests in (b"", LIST[:-1], b"x"):
        with pytest.raises(UsageError):
            made(digests)
    with pytest.raises(Malformed, match="do not add up"):
        commit_digests("training", "json/1", LIST, 100, [shard(19)])


def test_each_way_a_list_can_differ_has_its_code() -> None:
    commitment = made()
    swapped = LIST[32:64] + LIST[:32] + LIST[64:]
    other = made(swapped)
    mixed = commitment.model_copy(update={"records": other.records})
    cases = [
        ("digests-length", commitment, LIST[:-32]),
        ("digests-length", commitment, LIST[:-1]),
        ("digests-length", commitment, b""),
        ("digests-records", commitment, swapped),
        ("digests-records", commitment, LIST[:-1] + bytes([LIST[-1] ^ 1])),
        ("digests-set", mixed.model_copy(update={"set": made(LIST[32:]).set}), swapped),
    ]
    check_digests(mixed, swapped)
    for code, about, digests in cases:
        with pytest.raises(ProofRefused) as caught:
            check_digests(about, digests)
        assert caught.value.code == code


def test_an_oversized_list_is_refused_before_hashing() -> None:
    with pytest.raises(LimitExceeded):
        check_digests(made(), LIST, limit=len(LIST) - 1)


def bent(**changes: Any) -> bytes:
    value = json.loads(made().to_bytes())
    for path, replacement in changes.items():
        *parents, last = path.split("__")
        target = value
        for part in parents:
            target = target[int(part) if part.isdigit() else part]
        if replacement is None:
            del target[last]
        else:
            target[last] = replacement
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "pot/dataset-commitment/v2"},
        {"version": None},
        {"role": "test"},
        {"view": "Pixels/1"},
        {"view": "pixels"},
        {"view": "pixels/1\n"},
        {"extra": "x"},
        {"records__count": "21"},
        {"records__count": 20},
        {"records__count": "020"},
        {"records__root_blake3": "00"},
        {"records__root_blake3": "A" * 64},
        {"set__count": "21"},
        {"set__count": "0"},
        {"set__depth": "3"},
        {"set__depth": "1"},
        {"shards__0__records": "19"},
        {"shards__0__name": ""},
        {"shards__0__more": "x"},
        {"shards": []},
        {"shards": {}},
    ],
)
def test_documents_that_contradict_themselves_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        DatasetCommitment.from_bytes(bent(**changes), what="C")


def test_two_shards_of_one_name_are_refused() -> None:
    with pytest.raises(Malformed, match="same name"):
        commit_digests("training", "json/1", LIST, 100, [shard(10), shard(10)])
