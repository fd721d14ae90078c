"""What is said of a document that does not fit: its kind first, in words of the specification, and never at length."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from pot.canonical import Count, Document, Hex32
from pot.errors import Malformed


class Paper(Document):
    version: Literal["pot/paper/v1"] = "pot/paper/v1"
    amount: Count
    digest: Hex32


class Plain(Document):
    amount: Count


GOOD = {"version": "pot/paper/v1", "amount": "3", "digest": "00" * 32}


def said(value: object, kind: type[Document] = Paper) -> str:
    with pytest.raises(Malformed) as found:
        kind.from_value(value, what="a.json")
    assert found.value.__suppress_context__ or found.value.__context__ is None
    return str(found.value)


def test_a_document_of_another_kind_is_called_what_it_is() -> None:
    other = {"version": "pot/challenge/v1", "chosen": []}
    assert said(other) == "a.json: is pot/challenge/v1, pot/paper/v1 is expected"
    with pytest.raises(Malformed, match=r"^a\.json: is pot/challenge/v1, pot/paper/v1 is expected$"):
        Paper.from_bytes(json.dumps(other, separators=(",", ":"), sort_keys=True).encode(), what="a.json")


@pytest.mark.parametrize("version", ["x" * 65, "pot/\u001b[2J", "two words", "", 7, None])
def test_a_version_that_is_none_is_not_repeated(version: object) -> None:
    text = said({**GOOD, "version": version})
    assert text.startswith("a.json: field version: ")
    assert "\u001b" not in text
    assert len(text) < 200


def test_fields_are_named_in_plain_words() -> None:
    assert said({"version": "pot/paper/v1", "digest": "00" * 32}) == "a.json: field amount is missing"
    assert said({**GOOD, "digest": "00"}) == (
        "a.json: field digest has not the form that its specification demands"
    )  # fmt: skip
    assert said({**GOOD, "extra": 1}).startswith("a.json: field extra: ")
    assert said({"version": "pot/other/v1"}, Plain) == "a.json: field amount is missing"
    assert said([]).startswith("a.json: field (document): ")
