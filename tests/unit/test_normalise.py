"""text-norm/1: the letter of the specification, the compiled code beside it, and the tables under both."""

from __future__ import annotations

import random
import re
import unicodedata
from itertools import product
from unicodedata import ucd_3_2_0 as unicode32

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pot.commitments.spans import Spans
from pot.data.views import lanes
from pot.data.views import normalise as module
from pot.data.views import unicode32 as table_module
from pot.data.views.normalise import normalise, normalise_plainly
from pot.data.views.unicode32 import COMPLEX, MAPPED, REMOVED, SPACE, normalised, tables
from pot.errors import EnvironmentFailure, Malformed

CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
COMPLEX_CODES = np.flatnonzero(tables().classes == COMPLEX).tolist()
MAPPED_CODES = np.flatnonzero(tables().classes == MAPPED).tolist()
AWKWARD = [*map(chr, [*COMPLEX_CODES, *MAPPED_CODES]), *" \t\n\r\x00\x1c\x85\xa0\xad\u200b\u2028\u3000aAzé’中ㅤ\ufeff",
           "\u0378", "\U000105c9", "\u2d00", "\U00016121", "\U0001f600", "e\u0301", "\uac00\u11a8"]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(AWKWARD), st.characters(codec="utf-8"), st.text("aB c", max_size=9))).map(
    "".join
)


def compiled(spans: Spans) -> list[bytes]:
    return list(module._normalise(spans, lanes))


def nfkc(text: str) -> str:
    """NFKC after UAX #15, from Unicode 3.2.0's decompositions and combining classes alone."""
    whole = [part for character in text for part in decomposed(character)]
    for end in range(len(whole), 1, -1):  # canonical order: a stable sort of each run of non-starters
        for at in range(end - 1):
            first, second = unicode32.combining(whole[at]), unicode32.combining(whole[at + 1])
            if first > second > 0:
                whole[at], whole[at + 1] = whole[at + 1], whole[at]
    done: list[str] = []
    starter = -1
    for character in whole:
        number = unicode32.combining(character)
        blocked = starter < len(done) - 1 and (unicode32.combining(done[-1]) >= number or number == 0)
        joined = None if starter < 0 or blocked else composed(done[starter], character)
        if joined is not None:
            done[starter] = joined
            continue
        done.append(character)
        if number == 0:
            starter = len(done) - 1
    return "".join(done)


# as 3.2.0 had them, before Corrigendum 4; `unicode32.decomposition` gives the corrected ones, `normalize` these
FIVE = {
    "\U0002f868": "\U0002136a", "\U0002f874": "\u5f33", "\U0002f91f": "\u43ab", "\U0002f95f": "\u7aae",
    "\U0002f9bf": "\u4d57",
}  # fmt: skip


def decomposed(character: str) -> str:
    if character in FIVE:
        return FIVE[character]
    parts = unicode32.decomposition(character).split()
    if 0xAC00 <= ord(character) <= 0xD7A3:  # Hangul, UAX #15
        place = ord(character) - 0xAC00
        tail = [chr(0x11A7 + place % 28)] if place % 28 else []
        return "".join([chr(0x1100 + place // 588), chr(0x1161 + place % 588 // 28), *tail])
    if not parts:
        return character
    return "".join(decomposed(chr(int(part, 16))) for part in parts if not part.startswith("<"))


PAIRS = {
    tuple(chr(int(part, 16)) for part in unicode32.decomposition(chr(code)).split()): chr(code)
    for code in CODES
    if len(unicode32.decomposition(chr(code)).split()) == 2
    and not unicode32.decomposition(chr(code)).startswith("<")
    and unicode32.normalize("NFC", chr(code)) == chr(code)  # else it is a composition exclusion
}


def composed(first: str, second: str) -> str | None:
    lead, vowel = ord(first) - 0x1100, ord(second) - 0x1161
    if 0 <= lead < 19 and 0 <= vowel < 21:
        return chr(0xAC00 + (lead * 21 + vowel) * 28)
    place, tail = ord(first) - 0xAC00, ord(second) - 0x11A7
    if 0 <= place <= 0xD7A3 - 0xAC00 and place % 28 == 0 and 0 < tail < 28:
        return chr(ord(first) + tail)
    return PAIRS.get((first, second))


ASSIGNED = re.compile(tables().assigned_runs.pattern)


@settings(max_examples=500)
@given(texts)
@example("\U0002f868\U0002f874\U0002f91f\U0002f95f\U0002f9bf")
def test_nfkc_of_unicode_3_2_is_what_the_data_say(text: str) -> None:
    for run in ASSIGNED.findall(text):
        assert unicode32.normalize("NFKC", run) == nfkc(run)


@settings(max_examples=500)
@given(texts)
def test_newer_unicode_agrees_on_assigned_characters_but_for_five(text: str) -> None:
    for run in ASSIGNED.findall(re.sub(f"[{''.join(FIVE)}]", "", text)):
        assert unicodedata.normalize("NFKC", run) == unicode32.normalize("NFKC", run)


@settings(max_examples=1000)
@given(st.lists(texts, max_size=5))
@example(["\u0301", "\u0301a", "a\u0301"])
@example(["ﷺ" * 99, "ﷺ\u0301" * 99])
def test_compiled_and_plain_give_the_same_bytes(strings: list[str]) -> None:
    spans = Spans.of(string.encode() for string in strings)
    expected = [normalised(string).encode() for string in strings]
    assert list(normalise_plainly(spans)) == expected
    assert compiled(spans) == expected


def test_compiled_and_plain_agree_on_every_character() -> None:
    strings = [f"x{chr(code)}y" for code in CODES if code < 0x30000 or code % 0x100 < 4]
    spans = Spans.of(string.encode() for string in strings)
    assert compiled(spans) == [normalised(string).encode() for string in strings]


def test_what_comes_before_a_complex_character_is_normalised_with_it() -> None:
    rng = random.Random(3)
    before = [*rng.sample(CODES, 300), *rng.sample(MAPPED_CODES, 100), 0x1100, 0xAC00, 0x41, 0x20]
    strings = [chr(a) + chr(b) for a, b in product(before, COMPLEX_CODES)]
    spans = Spans.of(string.encode() for string in strings)
    assert compiled(spans) == [normalised(string).encode() for string in strings]


@settings(max_examples=500)
@given(texts)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@settings(max_examples=500)
@given(texts, texts)
def test_words_are_normalised_by_themselves(first: str, second: str) -> None:
    parts = [part for part in (normalised(first), normalised(second)) if part]
    assert normalised(first + " " + second) == " ".join(parts)


def test_classes_by_number() -> None:
    numbers = {number: int((tables().classes == number).sum()) for number in (SPACE, REMOVED, MAPPED, COMPLEX)}
    assert numbers == {SPACE: 29, REMOVED: 4234, MAPPED: 4891, COMPLEX: 457}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("  Hello,\r\n\tWORLD \n", "hello, world"),
        ("e\u0301 É é", "é é é"),
        ("Straße ﬁne", "strasse fine"),
        ("a\u200bb\u00adc\ufeff\u2060", "abc"),
        ("e\u200d\u0301", "é"),  # removed before composing: no hiding place
        ("x\u00a0\u2003\u3000y", "x y"),
        ("\u200b \u200b", ""),
        ("¨a", "\u0308a"),
        ("Ω Ω", "ω ω"),
        ("\x00\x07a\x1b[0m", "a[0m"),
        ("ΣΑΣ ς", "σασ σ"),
        ("\u1100\u1161\u11a8", "각"),
        ("раураl", "раураl"),  # Cyrillic letters stay what they are
        ("\U0001f600\u0378", "\U0001f600\u0378"),
    ],
)
def test_examples(text: str, form: str) -> None:
    assert list(normalise_plainly(Spans.of([text.encode()]))) == [form.encode()]
    assert compiled(Spans.of([text.encode()])) == [form.encode()]


@pytest.mark.parametrize(
    "data", [b"\xff", b"a\xc3", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x80\x80\x80",
             b"\xe4\xb8", b"\x80", b"e\xcc\x81\xff", b"\xf5\x80\x80\x80", b"\xcc\x81 \xe4\xb8a"],
)  # fmt: skip
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    for way in (normalise_plainly, compiled):
        with pytest.raises(Malformed, match="text 1 of a batch is not UTF-8"):
            way(Spans.of([b"fine", data]))


def test_a_truncated_character_does_not_reach_into_the_next_record() -> None:
    with pytest.raises(Malformed):
        compiled(Spans.of([b"\xe4", b"\xb8\xad"]))


def test_spans_inside_a_larger_buffer() -> None:
    data = np.frombuffer("xx Ab  é e\u0301 cx".encode(), np.uint8)
    spans = Spans(data, np.array([3, 9, 13], np.int64))
    assert compiled(spans) == list(normalise_plainly(spans)) == ["ab é".encode(), "é".encode()]


def test_much_is_normalised_by_the_kernel_with_the_same_bytes() -> None:
    text = "The  Quick brown fox, caf\u00e9 and cafe\u0301.\n" * 200_000
    assert list(normalise(Spans.of([text.encode()]))) == [normalised(text).encode()]


@pytest.mark.parametrize(
    "marks", ["\u0301\u0323", "\u0f73", "\u0345\u0301\u0344\u093c", "\u0f73\u0301", "\u11a8\u3099"]
)
@pytest.mark.parametrize("length", [60, 64, 65, 200])
def test_many_marks_in_a_row(marks: str, length: int) -> None:
    """Put in order before Python does it; both orders are the same."""
    text = f"Xa{marks * length}b"[: length + 2] + "c"
    (run,) = ASSIGNED.findall(text)
    expected = unicode32.normalize("NFKC", unicode32.normalize("NFKC", run).casefold())
    assert normalised(text) == expected
    assert compiled(Spans.of([text.encode()])) == [expected.encode()]


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\u0f73"])
def test_a_megabyte_of_marks_is_not_sorted_by_insertion(marks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile text: `unicodedata` alone would take minutes for this and hours for ten times as much."""
    seen: list[str] = []

    class Watched:
        combining = staticmethod(unicode32.combining)

        @staticmethod
        def normalize(form: str, text: str) -> str:
            seen.append(text)
            return unicode32.normalize(form, text)

    tables()
    monkeypatch.setattr(table_module, "unicode32", Watched)
    normalised("a" + marks * 200_000)
    assert max(map(len, seen)) > 200_000
    for text in seen:
        numbers = [unicode32.combining(part) for mark in text[1:] for part in unicode32.normalize("NFKD", mark)]
        assert len(text) < 3 or numbers == sorted(numbers)


def test_other_tables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check a Python with other tables would give other bytes for the same text, and say nothing."""
    tables.cache_clear()
    monkeypatch.setattr(table_module, "_SPACES", (*table_module._SPACES, (0x2800, 0x2800)))
    with pytest.raises(EnvironmentFailure, match="tables give"):
        tables()
    monkeypatch.undo()
    tables.cache_clear()
    tables()
