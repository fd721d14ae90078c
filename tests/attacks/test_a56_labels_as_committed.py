"""A56: wrong labels in the records. Nothing can catch that; what is shown must not say more than "as committed"."""

from __future__ import annotations

from hidden_data import listed

from attest.predicate import NON_CLAIMS
from attest.verdict.codes import NOT_SHOWN
from attest.verdict.sentences import COMPOSITION
from pot.data import composition_verify
from pot.data.composition import compose, recompute
from pot.data.composition_verify import check_composition

TEXTS = [f"a page of a book, number {number}" for number in range(12)]
LENGTHS = [len(text) for text in TEXTS]
TRUE = [{"licence": "all rights reserved"}] * 12
FALSE = [{"licence": "CC0"}] * 12


def test_false_labels_are_not_detected() -> None:
    """Committed with them, the data gives them again to every auditor: all checks pass."""
    data = listed(TEXTS)
    lie = compose(data.commitment, data.digests, LENGTHS, ["licence"], FALSE)
    check_composition(data.commitment, lie)
    recompute(data.commitment, lie, data.digests, LENGTHS, FALSE)
    assert [(group.labels, group.records) for group in lie.groups] == [({"licence": "CC0"}, "12")]
    # under a view that does not see the label, the same commitment takes either
    check_composition(data.commitment, compose(data.commitment, data.digests, LENGTHS, ["licence"], TRUE))


def test_so_the_claim_says_as_committed() -> None:
    assert "as committed" in COMPOSITION
    assert "labels may be false" in COMPOSITION
    assert "true" not in COMPOSITION


def test_and_every_report_lists_what_is_not_shown() -> None:
    assert "label-truth" in NON_CLAIMS
    assert "labels" in NOT_SHOWN["label-truth"]
    assert "as committed" in str(composition_verify.__doc__)
