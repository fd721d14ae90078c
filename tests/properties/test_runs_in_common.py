"""The theorems of the gram views: planted runs are found at their length, and may be missed one element below."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pot.commitments.spans import Spans
from pot.data.views import VIEWS, lanes, winnow
from pot.data.views.minhash import BANDS, ROWS, SHINGLE

SEEDS = st.integers(0, 2**32 - 1)


def shared(view: str, training: list[bytes], x: list[bytes]) -> bool:
    _, ours = VIEWS[view].keys(Spans.of(training), "training")
    _, theirs = VIEWS[view].keys(Spans.of(x), "exclusion")
    return bool(np.isin(theirs, ours).any())


def planted(rng: np.random.Generator, run: int, letters: int) -> tuple[bytes, bytes]:
    """Two texts over two different alphabets of `letters` letters each, with one run in common, at random places."""
    middle = rng.integers(32, 127, run, np.uint8).tobytes()
    texts = []
    for base in (128, 192):
        before, after = (rng.integers(base, base + letters, rng.integers(0, 300), np.uint8).tobytes() for _ in range(2))
        texts.append(before + middle + after)
    return texts[0], texts[1]


@settings(max_examples=400)
@given(SEEDS, st.integers(1, 64))
def test_a_run_of_50_shares_a_winnowed_key(seed: int, letters: int) -> None:
    ours, theirs = planted(np.random.default_rng(seed), 50, letters)
    assert shared("winnow50/1", [ours], [theirs])
    assert shared("winnow50/1", [theirs], [ours])


@settings(max_examples=400)
@given(SEEDS, st.integers(1, 64))
def test_a_run_of_99_shares_a_tile(seed: int, letters: int) -> None:
    ours, theirs = planted(np.random.default_rng(seed), 99, letters)
    assert shared("tiles50/1", [ours], [theirs])
    assert shared("tiles50/1", [theirs], [ours])


@pytest.mark.parametrize(("view", "run"), [("winnow50/1", 49), ("tiles50/1", 98)])
def test_one_byte_less_may_be_missed(view: str, run: int) -> None:
    found = [
        shared(view, [ours], [theirs])
        for ours, theirs in (planted(np.random.default_rng(s), run, 60) for s in range(400))
    ]
    assert 0 < sum(found) < len(found)


def test_98_bytes_that_fall_between_two_tiles() -> None:
    run = bytes(range(98))
    assert not shared("tiles50/1", [b"\xff" + run], [run])
    assert shared("tiles50/1", [b"\xff" + run + bytes([98])], [run + bytes([98])])


def of_tokens(tokens: NDArray[Any]) -> bytes:
    return tokens.astype("<u4").tobytes()


def split(rng: np.random.Generator, tokens: NDArray[Any]) -> list[bytes]:
    """Cut into sequences at random places."""
    cuts = np.sort(rng.integers(0, len(tokens) + 1, rng.integers(0, 9)))
    return [of_tokens(part) for part in np.split(tokens, cuts)]


@settings(max_examples=300)
@given(SEEDS, st.integers(1, 50_000), st.sampled_from([None, lanes]))
def test_50_tokens_are_found_wherever_sequences_are_cut(seed: int, vocabulary: int, chosen: Any) -> None:
    rng = np.random.default_rng(seed)
    run = rng.integers(0, 2**32, 50)
    sides = []
    for shift in (0, 1 << 20):
        before, after = (shift + rng.integers(0, vocabulary, rng.integers(0, 200)) for _ in range(2))
        sides.append(np.concatenate([before, run, after]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winnow, "kernel", lambda size: chosen)
        assert shared("winnow50-tokens/1", split(rng, sides[0]), split(rng, sides[1]))


def test_49_tokens_may_be_missed() -> None:
    found = []
    for seed in range(660, 690):  # one in 200 is missed
        rng = np.random.default_rng(seed)
        run = rng.integers(0, 1 << 20, 49)
        ours, theirs = (np.concatenate([rng.integers(0, 1 << 20, 60), run, rng.integers(0, 1 << 20, 60)]) for _ in "12")
        found.append(shared("winnow50-tokens/1", [of_tokens(ours)], [of_tokens(theirs)]))
    assert 0 < sum(found) < len(found)


def test_the_record_that_is_named_holds_a_token_of_the_run() -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        run = rng.integers(0, 1 << 20, 60)
        ours = np.concatenate([rng.integers(1 << 20, 1 << 21, 150), run, rng.integers(1 << 20, 1 << 21, 150)])
        cuts = np.sort(rng.integers(0, 361, 25))
        edges = np.concatenate([[0], cuts, [360]])
        records = [of_tokens(ours[a:b]) for a, b in pairwise(edges)]
        counts, keys = VIEWS["winnow50-tokens/1"].keys(Spans.of(records), "training")
        _, asked = VIEWS["winnow50-tokens/1"].keys(Spans.of([of_tokens(run)]), "exclusion")
        named = np.repeat(np.arange(len(records)), counts)[np.isin(keys, asked)]
        assert len(named)
        for record in named:
            assert max(edges[record], 150) < min(edges[record + 1], 210)


def edited(rng: np.random.Generator, text: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A copy with a share of its bytes replaced."""
    copy = text.copy()
    places = rng.random(len(text)) < share
    copy[places] = rng.integers(97, 123, int(places.sum()))
    return copy


def shingles(text: NDArray[np.uint8]) -> set[bytes]:
    data = text.tobytes()
    return {data[at : at + SHINGLE] for at in range(len(data) - SHINGLE + 1)}


def test_minhash_finds_pairs_as_often_as_its_curve_says() -> None:
    """1 - (1 - J^8)^14, summed over pairs of known Jaccard similarity, within five standard deviations, by strata."""
    rng = np.random.default_rng(20)
    texts, others, similarities = [], [], []
    for share in np.repeat(np.linspace(0.002, 0.06, 30), 60):
        text = rng.integers(97, 123, 700, np.uint8)
        other = edited(rng, text, share)
        a, b = shingles(text), shingles(other)
        similarities.append(len(a & b) / len(a | b))
        texts.append(text.tobytes())
        others.append(other.tobytes())
    similarity = np.array(similarities)
    ours, theirs = (
        VIEWS["minhash/1"].keys(Spans.of(side), "training")[1].reshape(-1, BANDS) for side in (texts, others)
    )
    found = (ours == theirs).any(axis=1)
    curve = 1 - (1 - similarity**ROWS) ** BANDS
    edges = (0.2, 0.45, 0.6, 0.7, 0.8, 0.9, 1)
    for low, high in pairwise(edges):
        some = (similarity >= low) & (similarity < high)
        assert some.sum() >= 60
        deviation = float(np.sqrt((curve * (1 - curve))[some].sum()))
        assert abs(float(found[some].sum()) - float(curve[some].sum())) <= 5 * max(deviation, 1), (low, high)


def test_minhash_estimates_the_jaccard_similarity() -> None:
    """Rows agree as often as the similarity says: the permutations are close enough to random ones."""
    from pot.data.views.minhash import least_values

    rng = np.random.default_rng(21)
    text = rng.integers(97, 123, 3000, np.uint8)
    for share in (0.005, 0.02, 0.05):
        agreed, expected = [], []
        for _ in range(40):
            text = rng.integers(97, 123, 3000, np.uint8)
            other = edited(rng, text, share)
            least = least_values(Spans.of([text.tobytes(), other.tobytes()]))
            a, b = shingles(text), shingles(other)
            agreed.append(float((least[0] == least[1]).mean()))
            expected.append(len(a & b) / len(a | b))
        assert abs(np.mean(agreed) - np.mean(expected)) < 0.03
