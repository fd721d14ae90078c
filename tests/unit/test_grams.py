"""Gram views: what exactly the keys are, by the specification's letter, for compiled and plain code; roles; streams."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pot.canonical import derive
from pot.commitments.spans import Spans
from pot.data.views import VIEWS, grams, lanes, minhash, winnow
from pot.data.views import kernel as kernel_module
from pot.data.views.minhash import BANDS, ROWS, least_values_plainly
from pot.data.views.winnow import selected_plainly
from pot.errors import Malformed, UsageError

KEY = bytes(range(32))
MASK = 2**64 - 1
GRAM_VIEWS = ("tiles50/1", "winnow50/1", "winnow50-tokens/1", "minhash/1")

# few letters: repeats, ties, periods; and long runs of one letter
strings = st.one_of(
    st.text("ab", max_size=200),
    st.text("abcdefgh ", max_size=300),
    st.builds(lambda part, times: part * times, st.text("abc", min_size=1, max_size=60), st.integers(0, 40)),
).map(str.encode)


@pytest.fixture(params=["plain", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways through the code, whatever the sizes."""
    chosen = lanes if request.param == "compiled" else None
    for module in (winnow, minhash):
        monkeypatch.setattr(module, "kernel", lambda size: chosen)
    return str(request.param)


def key_of(data: bytes, key: bytes | None = None) -> int:
    return int.from_bytes((blake3(data) if key is None else blake3(data, key=key)).digest()[:8], "big")


def hash_of(gram: list[int]) -> int:
    value = 0
    for element in gram:
        value = (value * 0x9E3779B97F4A7C15 + element) & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def winnowed(values: list[int], short: bool = True) -> list[tuple[int, int]]:
    """(place of the gram, place of the last value of the window that selects it), after the letter."""
    hashes = [hash_of(values[at : at + 25]) for at in range(len(values) - 24)]
    window = min(26, len(hashes)) if short else 26
    found: list[tuple[int, int]] = []
    last = -1
    for start in range(len(hashes) - window + 1) if hashes else ():
        place = min(range(start, start + window), key=lambda at: (hashes[at], -at))
        if place != last and (last < 0 or values[place : place + 25] != values[last : last + 25]):
            found.append((place, start + window + 23))
        last = place
    return found


def keys(view: str, records: list[bytes], role: Any = "training", key: bytes | None = None) -> list[list[int]]:
    counts, found = VIEWS[view].keys(Spans.of(records), role, key)
    assert (counts.dtype, found.dtype, len(counts)) == (np.int64, np.uint64, len(records))
    parts = np.split(found, np.cumsum(counts)[:-1]) if records else []
    return [part.tolist() for part in parts]


def of_tokens(tokens: list[int]) -> bytes:
    return np.array(tokens, "<u4").tobytes()


@settings(max_examples=150)
@given(st.lists(strings, min_size=1, max_size=5), st.sampled_from([None, KEY]))
@example([b"a" * 24, b"a" * 25, b"a" * 49, b"a" * 50, b""], None)
def test_tiles(records: list[bytes], key: bytes | None) -> None:
    assert keys("tiles50/1", records, "training", key) == [
        [key_of(data[at : at + 50], key) for at in range(0, len(data) - 49, 50)] for data in records
    ]
    assert keys("tiles50/1", records, "exclusion", key) == [
        [key_of(data[at : at + 50], key) for at in range(len(data) - 49)] for data in records
    ]


@pytest.mark.parametrize("chosen", [lanes, None], ids=["compiled", "plain"])
@settings(max_examples=150)
@given(st.lists(strings, min_size=1, max_size=5))
@example([b"a" * 24, b"a" * 25, b"a" * 49, b"a" * 50, b""])
def test_winnowing(chosen: Any, records: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winnow, "kernel", lambda size: chosen)
        found = keys("winnow50/1", records, "exclusion", KEY)
    expected = [[key_of(data[at : at + 25], KEY) for at, _ in winnowed(list(data))] for data in records]
    assert found == expected


@pytest.mark.usefixtures("way")
def test_winnowing_over_many_steps_of_the_plain_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winnow, "_AT_ONCE", 7)
    data = b"".join(b"%d," % (number * number) for number in range(150))
    assert keys("winnow50/1", [data]) == [[key_of(data[at : at + 25]) for at, _ in winnowed(list(data))]]


@pytest.mark.usefixtures("way")
def test_a_run_of_one_letter_has_one_key() -> None:
    """Otherwise a record of a few hundred megabytes could ask for gigabytes of keys."""
    assert keys("winnow50/1", [b"=" * 10_000]) == [[key_of(b"=" * 25)]]
    assert len(set(keys("winnow50/1", [b"abc" * 5_000])[0])) == 1


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("length", "count"), [(0, 0), (24, 0), (25, 1), (49, 1), (50, 1)])
def test_short_records(length: int, count: int) -> None:
    data = bytes(range(100, 100 + length))
    assert len(keys("winnow50/1", [data])[0]) == count
    assert keys("winnow50/1", [data]) == keys("winnow50/1", [data], "exclusion")


def stream_keys(batches: list[list[list[int]]]) -> tuple[list[int], list[int]]:
    stream = VIEWS["winnow50-tokens/1"].stream("training", None)
    parts = [stream(Spans.of(map(of_tokens, batch))) for batch in batches]
    counts = [int(count) for part, _ in parts for count in part]
    return counts, [int(key) for _, part in parts for key in part]


tokens = st.lists(st.one_of(st.integers(0, 2), st.integers(0, 2**32 - 1)), max_size=90)
sequences = st.lists(tokens, max_size=8)


@pytest.mark.parametrize("chosen", [lanes, None], ids=["compiled", "plain"])
@settings(max_examples=150)
@given(sequences, st.lists(st.integers(0, 8), max_size=6))
@example([[7] * 49, [7]], [1])
@example([[7] * 50, [7], list(range(99))], [1, 2])
@example([[], [1] * 10, [], list(range(60)), []], [0, 1, 1, 4])
def test_tokens_of_a_shard_are_one_sequence_whatever_the_batches(
    chosen: Any, records: list[list[int]], cuts: list[int]
) -> None:
    joined = [token for record in records for token in record]
    ends = np.cumsum([0, *map(len, records)])[1:]
    places = winnowed(joined, short=False)
    expected_counts = [0] * len(records)
    for _, end in places:
        expected_counts[int(np.searchsorted(ends, end, side="right"))] += 1
    edges = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    batches = [records[a:b] for a, b in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winnow, "kernel", lambda size: chosen)
        counts, found = stream_keys(batches)
    assert found == [key_of(of_tokens(joined[at : at + 25])) for at, _ in places]
    assert counts == expected_counts


def test_tokens_that_are_cut_are_refused() -> None:
    with pytest.raises(Malformed, match="whole number of 4-byte token ids"):
        keys("winnow50-tokens/1", [bytes(200), bytes(7)])


def signature(data: bytes) -> list[int]:
    found = []
    for number in range(BANDS * ROWS):
        seed = derive("pot/minhash/v1", number.to_bytes(4, "little"))
        factor, term = int.from_bytes(seed[:4], "little") | 1, int.from_bytes(seed[4:8], "little")
        shingles = [hash_of(list(data[at : at + 9])) >> 32 for at in range(len(data) - 8)]
        found.append(min((factor * shingle + term) % 2**32 for shingle in shingles))
    return found


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("key", [None, KEY])
def test_minhash(key: bytes | None) -> None:
    records = [b"", b"12345678", b"123456789", b"the quick brown fox jumps over the lazy dog" * 3, b"aaaaaaaaaaaa"]
    expected = []
    for data in records:
        least = signature(data) if len(data) >= 9 else []
        bands = [least[at : at + ROWS] for at in range(0, len(least), ROWS)]
        expected.append([key_of(bytes([n]) + np.array(band, "<u4").tobytes(), key) for n, band in enumerate(bands)])
    assert keys("minhash/1", records, "training", key) == expected
    assert keys("minhash/1", records, "exclusion", key) == expected


@settings(max_examples=100)
@given(st.lists(strings, max_size=5))
def test_compiled_and_plain_give_the_same(records: list[bytes]) -> None:
    spans = Spans.of(records)
    least = np.full((len(spans), BANDS * ROWS), 2**32 - 1, np.uint32)
    lanes.minhash(spans.data, spans.offsets, 9, *minhash._permutations(), least)
    assert (least == least_values_plainly(spans)).all()


def test_the_plain_definition_of_minhash_over_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = Spans.of([bytes(range(250))])
    whole = least_values_plainly(spans)
    monkeypatch.setattr(minhash, "_AT_ONCE", 7)
    assert (least_values_plainly(spans) == whole).all()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("view", GRAM_VIEWS)
def test_spans_inside_a_larger_buffer(view: str) -> None:
    records = [bytes(range(200)), b"", bytes(range(100, 240))]
    joined = np.frombuffer(b"xyz" + b"".join(records) + b"xyz", np.uint8)
    inside = Spans(joined, Spans.of(records).offsets + 3)
    for given_spans, expected in zip(
        VIEWS[view].keys(inside, "exclusion"), VIEWS[view].keys(Spans.of(records), "exclusion"), strict=True
    ):
        assert given_spans.tolist() == expected.tolist()


@pytest.mark.parametrize("view", GRAM_VIEWS)
def test_no_record_at_all(view: str) -> None:
    counts, found = VIEWS[view].keys(Spans.of([]), "training")
    assert (len(counts), len(found)) == (0, 0)


@pytest.mark.parametrize("view", GRAM_VIEWS)
def test_inclusion_is_refused(view: str) -> None:
    with pytest.raises(UsageError, match="not that a record is in one"):
        VIEWS[view].keys(Spans.of([b"x" * 100]), "inclusion")


@pytest.mark.parametrize("view", GRAM_VIEWS)
def test_hidden_keys_are_other_keys(view: str) -> None:
    records = [bytes(range(256)) * 2]
    plain, hidden = keys(view, records), keys(view, records, key=KEY)
    assert len(plain[0]) == len(hidden[0]) > 0
    assert not set(plain[0]) & set(hidden[0])


def test_keys_of_many_grams_are_hashed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = keys("tiles50/1", [bytes(range(256))], "exclusion")
    monkeypatch.setattr(grams, "_AT_ONCE", 10)
    assert keys("tiles50/1", [bytes(range(256))], "exclusion") == whole


def test_without_numba_the_kernel_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module._LANES, "unusable", "numba is not installed")
    assert kernel_module.kernel(1 << 30) is None
    assert not kernel_module.load_kernel()


def test_a_kernel_that_cannot_be_loaded_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module._LANES, "unusable", "")
    monkeypatch.setattr(kernel_module._LANES, "module", "pot.data.views.absent")
    with pytest.warns(RuntimeWarning, match="without Numba, slower"):
        assert not kernel_module.load_kernel()
    assert kernel_module.kernel(1 << 30) is None


def test_plain_selection_is_the_reference() -> None:
    """Also for 32-bit values as one record."""
    values = [number * number % 97 for number in range(400)]
    starts, ends, counts = selected_plainly(np.array(values, np.uint32), np.array([0, 400]), short=False)
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == winnowed(values, short=False)
    assert counts.tolist() == [len(starts)]
