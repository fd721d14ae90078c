"""A29: a record of X is trained on in pieces, inside a longer record, or across packed sequences.

text/1 and tokens/1 compare whole records and miss it. What catches it: winnow50/1 inside a longer record and in pieces
of 50 bytes; winnow50-tokens/1 over the packed stream of a shard. A paraphrase has no run in common: a limit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pot.data import views
from pot.data.commit import Committed, commit
from pot.data.exclude import Overlap, exclude
from pot.data.views.winnow import token_stream

TEXT = (
    "At the second reading the chair recalled that the committee had agreed on all but two of the amendments, and that "
    "the remaining two would be put to the vote after the recess, one after the other."
)
PARAPHRASE = (
    "When the draft was read again, the presiding member reminded everybody: only a pair of changes was still open, "
    "and both were to be voted on, in turn, once the break was over."
)
OTHER = "a record with other words, long enough to have some keys of its own, whatever the view that it is seen through"
RNG = np.random.default_rng(29)
X = RNG.integers(0, 50_000, 120)
BEFORE, AFTER = RNG.integers(50_000, 100_000, 400), RNG.integers(50_000, 100_000, 400)


def committed(folder: Path, records: list[Any], view: str, role: str) -> Committed:
    path = folder / f"{role}.jsonl"
    field = "tokens" if "tokens" in view else "text"
    path.write_text("".join(json.dumps({field: record}) + "\n" for record in records))
    return commit([path], view, role)  # type: ignore[arg-type]


def caught(folder: Path, trained_on: list[Any], x: list[Any], view: str) -> bool:
    """Whether the developer gets no exclusion file for `x`."""
    found = exclude(committed(folder, trained_on, view, "training"), committed(folder, x, view, "exclusion"))
    return isinstance(found, Overlap)


def packed(length: int) -> list[list[int]]:
    """X in a stream of tokens that is cut into sequences of one length."""
    stream = np.concatenate([BEFORE, X, AFTER]).tolist()
    return [stream[at : at + length] for at in range(0, len(stream), length)]


@pytest.mark.parametrize("length", [440, 64, 50, 49, 10, 1])
def test_packed_sequences_are_caught(tmp_path: Path, length: int) -> None:
    assert not caught(tmp_path, packed(length), [X.tolist()], "tokens/1")
    assert caught(tmp_path, packed(length), [X.tolist()], "winnow50-tokens/1")


def test_without_the_packed_stream_the_forgery_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sequence by itself, as winnow50/1 does it: sequences of 49 tokens have no window."""
    trained_on = [*packed(49), AFTER.tolist()]
    assert caught(tmp_path, trained_on, [X.tolist()], "winnow50-tokens/1")

    def by_sequence(role: Any, key: bytes | None) -> Any:
        def take(spans: Any) -> Any:
            from pot.commitments.spans import Spans

            parts = [token_stream(role, key)(Spans.of([record])) for record in spans]
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

        return take

    view = views.view_named("winnow50-tokens/1")
    bent = type(view)(view.name, view.needs, view.sentence, view.content, shard_stream=by_sequence)
    monkeypatch.setitem(views.VIEWS, view.name, bent)
    assert not caught(tmp_path, trained_on, [X.tolist()], "winnow50-tokens/1")


def test_across_two_shards_is_a_limit(tmp_path: Path) -> None:
    """The sentence says "within one shard": 40 tokens at the end of one and 80 - 40 at the start of the next."""
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text(json.dumps({"tokens": [*BEFORE.tolist(), *X[:40].tolist()]}) + "\n")
    second.write_text(json.dumps({"tokens": [*X[40:80].tolist(), *AFTER.tolist()]}) + "\n")
    d = commit([first, second], "winnow50-tokens/1", "training")
    assert not isinstance(exclude(d, committed(tmp_path, [X[:80].tolist()], "winnow50-tokens/1", "exclusion")), Overlap)


def test_inside_a_longer_record_it_is_caught(tmp_path: Path) -> None:
    longer = [f"{OTHER}. {TEXT} {OTHER}."]
    for view in ("text/1", "text-norm/1"):
        assert not caught(tmp_path, longer, [TEXT], view), view
    for view in ("winnow50/1", "tiles50/1"):
        assert caught(tmp_path, longer, [TEXT], view), view


def test_in_pieces_it_is_caught_down_to_50_bytes(tmp_path: Path) -> None:
    pieces = [OTHER, *(TEXT[at : at + 60] for at in range(0, len(TEXT), 60))]
    assert not caught(tmp_path, pieces, [TEXT], "text-norm/1")
    assert caught(tmp_path, pieces, [TEXT], "winnow50/1")


def test_pieces_below_the_length_of_a_gram_are_a_limit(tmp_path: Path) -> None:
    pieces = [OTHER, *(TEXT[at : at + 24] for at in range(0, len(TEXT), 24))]
    assert not caught(tmp_path, pieces, [TEXT], "winnow50/1")


@pytest.mark.parametrize("view", ["text/1", "text-norm/1", "winnow50/1", "tiles50/1", "minhash/1"])
def test_a_paraphrase_is_a_limit(tmp_path: Path, view: str) -> None:
    """Shown so that nobody reads it out of a sentence: no view here knows what a text means."""
    assert not caught(tmp_path, [OTHER, PARAPHRASE], [TEXT], view)
