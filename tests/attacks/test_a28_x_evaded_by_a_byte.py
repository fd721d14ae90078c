"""A28: a record of X is trained on with a byte changed, so that its digest is another.

text/1 misses every such change, as its sentence says. What catches it: text-norm/1 for white space, case, Unicode form
and invisible characters; winnow50/1 also for other letters of the same shape, as long as 50 bytes stay in one piece.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from pot.data.commit import Committed, commit
from pot.data.exclude import Overlap, exclude
from pot.data.exclude_verify import Exclusion, check_exclusion

TEXT = (
    "The Café Commission held its public hearing on the naïve proposal, and Überlingen's delegates objected to every "
    "clause of it, twice, before the resolution was adopted without a vote."
)
OTHERS = ["an unrelated text that has nothing to do with any hearing, nor with delegates", "and a second one, " * 9]

CHANGES = {
    "trailing space": TEXT + " ",
    "line ends": TEXT.replace(" ", "\r\n", 3),
    "NFD": unicodedata.normalize("NFD", TEXT),
    "full-width": TEXT.replace("public", "ｐｕｂｌｉｃ"),
    "zero-width space": TEXT.replace("hearing", "hea\u200bring"),
    "joiner before an accent": unicodedata.normalize("NFD", TEXT).replace("\u0301", "\u200d\u0301"),
    "soft hyphen": TEXT.replace("proposal", "pro\u00adposal"),
    "variation selector": TEXT.replace("vote", "vo\ufe0fte"),
    "byte-order mark": "\ufeff" + TEXT,
    "control character": TEXT.replace("every", "eve\x7fry"),
    "no-break space": TEXT.replace(" ", "\u00a0"),
    "case": TEXT.upper(),
}


def committed(folder: Path, texts: list[str], view: str, role: str) -> Committed:
    path = folder / f"{role}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return commit([path], view, role)  # type: ignore[arg-type]


def caught(folder: Path, trained_on: str, view: str) -> bool:
    """Whether the developer, with `trained_on` among the data, gets no exclusion file for TEXT."""
    d = committed(folder, [OTHERS[0], trained_on, OTHERS[1]], view, "training")
    x = committed(folder, [TEXT], view, "exclusion")
    found = exclude(d, x)
    if isinstance(found, Overlap):
        assert found.training_indices == [1]
        return True
    assert isinstance(found, Exclusion)
    check_exclusion(d.commitment, x.commitment, bytes(x.listing), found.to_bytes())
    return False


@pytest.mark.parametrize("view", ["text/1", "text-norm/1", "winnow50/1", "tiles50/1", "minhash/1"])
def test_the_record_itself_is_caught_by_every_view(tmp_path: Path, view: str) -> None:
    assert caught(tmp_path, TEXT, view)


@pytest.mark.parametrize("change", CHANGES)
def test_normalised_it_is_caught(tmp_path: Path, change: str) -> None:
    for view in ("text-norm/1", "winnow50/1", "tiles50/1", "minhash/1"):
        assert caught(tmp_path, CHANGES[change], view), view


@pytest.mark.parametrize("change", CHANGES)
def test_without_normalising_the_forgery_passes(tmp_path: Path, change: str) -> None:
    assert not caught(tmp_path, CHANGES[change], "text/1")


def test_a_homoglyph_passes_text_norm_and_is_caught_by_runs(tmp_path: Path) -> None:
    """A Cyrillic o is another letter in every Unicode form; 50 bytes beside it are the same."""
    changed = TEXT.replace("objected", "оbjected")
    assert changed != TEXT
    assert not caught(tmp_path, changed, "text-norm/1")
    assert caught(tmp_path, changed, "winnow50/1")


def test_a_homoglyph_in_every_piece_is_a_limit(tmp_path: Path) -> None:
    """Every o and e is Cyrillic: no run of 50 bytes stays. No view here catches it, and none says so."""
    changed = TEXT.replace("o", "о").replace("e", "е")
    for view in ("text-norm/1", "winnow50/1", "tiles50/1"):
        assert not caught(tmp_path, changed, view), view
