"""Exclusion under views with many keys a record: what is shown, what is found, and which records are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pot.commitments.hiding import new_key
from pot.commitments.merkle_verify import ProofRefused
from pot.data.commit import Committed, commit
from pot.data.exclude import Overlap, exclude
from pot.data.exclude_verify import Exclusion, check_exclusion
from pot.errors import UsageError

SHARED = "a sentence of more than fifty bytes that stands in both places, word for word, and is long"
OURS = [f"ours, number {number}: {'qwertz' * (number + 9)}" for number in range(40)]
THEIRS = [f"theirs, number {number}: {'asdfgh' * (number + 9)}" for number in range(9)]


def committed(folder: Path, name: str, texts: list[str], view: str, role: str, **more: object) -> Committed:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return commit([path], view, role, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("view", ["tiles50/1", "winnow50/1", "minhash/1"])
def test_nothing_in_common_gives_a_file_that_verifies(tmp_path: Path, view: str) -> None:
    d = committed(tmp_path, "d", OURS, view, "training")
    x = committed(tmp_path, "x", THEIRS, view, "exclusion")
    found = exclude(d, x)
    assert isinstance(found, Exclusion)
    check_exclusion(d.commitment, x.commitment, bytes(x.listing), found.to_bytes())
    assert d.commitment.records.count == "40"
    assert int(d.commitment.records.bytes) == 8 * (len(d.listing) - 4 * 40) // 8


@pytest.mark.parametrize("view", ["tiles50/1", "winnow50/1"])
def test_a_shared_run_is_found_on_both_sides(tmp_path: Path, view: str) -> None:
    ours = [*OURS[:5], f"{'z' * 77} {SHARED}, and it goes on {SHARED}", *OURS[5:]]
    d = committed(tmp_path, "d", ours, view, "training")
    x = committed(tmp_path, "x", [*THEIRS, f"before. {SHARED}, and it goes on {SHARED} then"], view, "exclusion")
    found = exclude(d, x)
    assert found == Overlap(1, [9], [5])


def test_the_keys_of_another_view_or_another_list_are_refused(tmp_path: Path) -> None:
    d = committed(tmp_path, "d", OURS, "winnow50/1", "training")
    x = committed(tmp_path, "x", THEIRS, "winnow50/1", "exclusion")
    fewer = committed(tmp_path, "y", THEIRS[:-1], "winnow50/1", "exclusion")
    found = exclude(d, x)
    assert isinstance(found, Exclusion)
    for listing in (bytes(fewer.listing), bytes(x.listing)[:-8], bytes(x.listing) + bytes(8), b""):
        with pytest.raises(ProofRefused) as caught:
            check_exclusion(d.commitment, x.commitment, listing, found.to_bytes())
        assert caught.value.code == "x-digests"
    with pytest.raises(UsageError, match="commit X with --view winnow50/1"):
        exclude(d, committed(tmp_path, "z", THEIRS, "tiles50/1", "exclusion"))


@pytest.mark.parametrize("view", ["text/1", "winnow50/1"])
def test_hidden_sides_match_only_under_one_key(tmp_path: Path, view: str) -> None:
    key, other = new_key("blake3-keyed/1"), new_key("blake3-keyed/1")
    d = committed(tmp_path, "d", [*OURS, f"{SHARED} {SHARED}"], view, "training", key=key)
    x = committed(tmp_path, "x", THEIRS, view, "exclusion", key=key)
    inside = committed(tmp_path, "i", [f"{SHARED} {SHARED}"], view, "exclusion", key=key)
    assert isinstance(exclude(d, x), Exclusion)
    assert exclude(d, inside) == Overlap(1, [0], [40])
    for wrong in (committed(tmp_path, "w", THEIRS, view, "exclusion", key=other),
                  committed(tmp_path, "p", THEIRS, view, "exclusion")):  # fmt: skip
        with pytest.raises(UsageError, match="same --key-file"):
            exclude(d, wrong)
        # without that check the proof would show absence for keys that could never match
        forged = exclude(
            Committed(d.commitment.model_copy(update={"hiding": wrong.commitment.hiding}), d.listing), wrong
        )
        assert isinstance(forged, Exclusion)
        with pytest.raises(ProofRefused) as caught:
            check_exclusion(d.commitment, wrong.commitment, bytes(wrong.listing), forged.to_bytes())
        assert caught.value.code == "hiding-mismatch"


def test_texts_too_short_for_a_gram_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the 2 records is long enough for the view winnow50/1"):
        committed(tmp_path, "s", ["short", "shorter"], "winnow50/1", "training")
