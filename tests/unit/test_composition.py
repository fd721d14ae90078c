"""Compositions: sums per label, what holds them to the commitment, and every way to make them up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hidden_data import listed

from pot.canonical import canonical_bytes
from pot.commitments.hiding import new_key
from pot.commitments.merkle_verify import ProofRefused
from pot.commitments.sumtree_verify import Sums, root_of
from pot.data.composition import compose, group_tree, label_of, recompute
from pot.data.composition_verify import (
    MAX_GROUPS,
    Composition,
    check_composition,
    check_in_group,
    group_identity,
    ordered_labels,
)
from pot.errors import LimitExceeded, Malformed, Refused, UsageError

TEXTS = [f"record {'x' * number}" for number in range(30)]
DATA = listed(TEXTS)
LENGTHS = [len(text) for text in TEXTS]
BY = ["source", "licence"]
KINDS = ("records", "bytes", "tokens")
LABELS = [{"licence": ("MIT", "CC0", "(none)")[n % 3], "source": "web" if n < 20 else "books"} for n in range(30)]
TOKENS = [number * number for number in range(30)]
MADE = compose(DATA.commitment, DATA.digests, LENGTHS, BY, LABELS, "n_tokens", TOKENS)


def bent(change: Callable[[dict[str, Any]], None], seal: bool = True) -> Composition:
    """The composition changed; with `seal` its root made to fit its groups, as a forger would."""
    value = json.loads(MADE.to_bytes())
    change(value)
    if seal:
        leaves = [
            (group_identity(group["labels"], group["root_blake3"]), Sums(*(int(group.get(kind, 0)) for kind in KINDS)))
            for group in value["groups"]
        ]
        value["root_blake3"] = root_of(leaves)[0].hex()
    return Composition.from_bytes(canonical_bytes(value), what="composition")


def test_sums_per_combination_of_labels() -> None:
    check_composition(DATA.commitment, MADE)
    assert [ordered_labels(BY, group.labels) for group in MADE.groups] == sorted(
        {(row["source"], row["licence"]) for row in LABELS}
    )
    for group in MADE.groups:
        rows = [n for n in range(30) if LABELS[n] == group.labels]
        assert group.records == str(len(rows))
        assert group.bytes == str(sum(LENGTHS[n] for n in rows))
        assert group.tokens == str(sum(TOKENS[n] for n in rows))
    assert (MADE.totals.records, MADE.totals.bytes) == ("30", DATA.commitment.records.bytes)
    assert Composition.from_bytes(MADE.to_bytes(), what="composition") == MADE


def test_the_order_of_fields_orders_the_groups_and_nothing_else() -> None:
    other = compose(DATA.commitment, DATA.digests, LENGTHS, BY[::-1], LABELS, "n_tokens", TOKENS)
    assert [g.labels["licence"] for g in other.groups] == sorted(g.labels["licence"] for g in MADE.groups)
    assert sorted(g.root_blake3 for g in other.groups) == sorted(g.root_blake3 for g in MADE.groups)


def test_without_tokens_none_are_told() -> None:
    made = compose(DATA.commitment, DATA.digests, LENGTHS, ["licence"], LABELS)
    check_composition(DATA.commitment, made)
    assert b"tokens" not in made.to_bytes()
    recompute(DATA.commitment, made, DATA.digests, LENGTHS, LABELS)


def test_hidden_data_composes_too() -> None:
    data = listed(TEXTS, key=new_key("blake3-keyed/1"))
    check_composition(data.commitment, compose(data.commitment, data.digests, LENGTHS, BY, LABELS))


def move(value: dict[str, Any], kind: str, by: int, *, total: bool = False) -> None:
    value["groups"][0][kind] = str(int(value["groups"][0][kind]) + by)
    if total:
        value["totals"][kind] = str(int(value["totals"][kind]) + by)


def swap(value: dict[str, Any], kind: str) -> None:
    move(value, kind, 1)
    value["groups"][1][kind] = str(int(value["groups"][1][kind]) - 1)


FORGERIES: list[tuple[str, Callable[[dict[str, Any]], Any], bool]] = [
    ("composition-commitment", lambda v: v.update(commitment_sha256="0" * 64), True),
    ("composition-sums", lambda v: move(v, "records", 1), True),
    ("composition-sums", lambda v: move(v, "bytes", 1), True),
    ("composition-sums", lambda v: move(v, "tokens", 1), True),
    ("composition-sums", lambda v: move(v, "records", 1, total=True), True),
    ("composition-sums", lambda v: move(v, "bytes", -1, total=True), True),
    ("composition-sums", lambda v: v["groups"].pop(), True),
    ("composition-root", lambda v: swap(v, "bytes"), False),
    ("composition-root", lambda v: v["groups"][0]["labels"].update(licence="A"), False),
    ("composition-root", lambda v: v["groups"][0].update(root_blake3="0" * 64), False),
    ("composition-root", lambda v: v.update(root_blake3="0" * 64), False),
    ("composition-groups", lambda v: v["groups"].reverse(), True),
    ("composition-groups", lambda v: v["groups"].insert(0, v["groups"][0]), True),
    ("composition-groups", lambda v: v["groups"][0]["labels"].pop("licence"), True),
    ("composition-groups", lambda v: v["groups"][0]["labels"].update(more="x"), True),
    ("composition-groups", lambda v: v["by"].append("licence"), True),
    ("composition-groups", lambda v: v["by"].append("more"), True),
    ("composition-groups", lambda v: v["groups"][0].update(records="0"), True),
    ("composition-groups", lambda v: v["groups"][0].pop("tokens"), True),
    ("composition-groups", lambda v: v.pop("tokens_of"), True),
]


@pytest.mark.parametrize(("code", "change", "seal"), FORGERIES)
def test_what_does_not_add_up_is_refused(code: str, change: Callable[[dict[str, Any]], Any], seal: bool) -> None:
    with pytest.raises(ProofRefused) as caught:
        check_composition(DATA.commitment, bent(change, seal))
    assert caught.value.code == code


def test_bytes_moved_between_groups_need_an_auditor() -> None:
    """Sums that still add up, under a root that fits: only making the composition again shows it."""
    forged = bent(lambda value: swap(value, "bytes"))
    check_composition(DATA.commitment, forged)
    with pytest.raises(ProofRefused, match="first in group 0") as caught:
        recompute(DATA.commitment, forged, DATA.digests, LENGTHS, LABELS, TOKENS)
    assert caught.value.code == "composition-records"
    recompute(DATA.commitment, MADE, DATA.digests, LENGTHS, LABELS, TOKENS)


def test_a_record_is_shown_to_be_in_its_group() -> None:
    for number, group in enumerate(MADE.groups):
        tree, rows = group_tree(MADE, number, DATA.digests, LENGTHS, LABELS, TOKENS)
        for at, row in enumerate(rows):
            amounts = Sums(1, LENGTHS[row], TOKENS[row])
            check_in_group(MADE, number, DATA.digests[row].tobytes(), amounts, at, tree.path(at))
            for wrong in (Sums(1, LENGTHS[row] + 1, TOKENS[row]), Sums(2, LENGTHS[row], TOKENS[row])):
                with pytest.raises(ProofRefused):
                    check_in_group(MADE, number, DATA.digests[row].tobytes(), wrong, at, tree.path(at))
        assert tree.root.hex() == group.root_blake3
    with pytest.raises(ProofRefused, match="no group 6"):
        check_in_group(MADE, 6, bytes(32), Sums(1, 1, 1), 0, [])


def test_gram_views_are_refused() -> None:
    from pot.commitments.dataset import DatasetCommitment

    gram = DatasetCommitment.from_value(json.loads(DATA.commitment.to_bytes()) | {"view": "winnow50/1"}, what="gram")
    with pytest.raises(UsageError, match="many keys"):
        compose(gram, DATA.digests, LENGTHS, BY, LABELS)
    with pytest.raises(ProofRefused) as caught:
        check_composition(gram, bent(lambda value: value.update(commitment_sha256=gram.sha256())))
    assert caught.value.code == "composition-commitment"


def test_only_the_committed_records_compose() -> None:
    with pytest.raises(Refused, match="another"):
        compose(DATA.commitment, DATA.digests[::-1], LENGTHS, BY, LABELS)
    with pytest.raises(Refused, match="lengths are not"):
        compose(DATA.commitment, DATA.digests, [*LENGTHS[:-1], 0], BY, LABELS)
    for arguments in ((DATA.digests[:-1], LENGTHS, BY, LABELS), (DATA.digests, LENGTHS[:-1], BY, LABELS),
                      (DATA.digests, LENGTHS, BY, LABELS[:-1]), (DATA.digests, LENGTHS, [], LABELS),
                      (DATA.digests, LENGTHS, ["a", "a"], LABELS), (DATA.digests, [-1] * 30, BY, LABELS),
                      (DATA.digests, [2**70] * 30, BY, LABELS)):  # fmt: skip
        with pytest.raises(UsageError, match="composition"):
            compose(DATA.commitment, *arguments)
    with pytest.raises(UsageError, match="come together"):
        compose(DATA.commitment, DATA.digests, LENGTHS, BY, LABELS, "n_tokens")


def test_labels_have_caps() -> None:
    with pytest.raises(LimitExceeded, match="more than 256 characters"):
        compose(DATA.commitment, DATA.digests, LENGTHS, ["l"], [{"l": "x" * 257}] * 30)
    many = listed([str(number) for number in range(MAX_GROUPS + 1)])
    lengths = [len(str(number)) for number in range(MAX_GROUPS + 1)]
    labels = [{"l": str(number)} for number in range(MAX_GROUPS + 1)]
    with pytest.raises(LimitExceeded, match="more than 4096 different labels, from record 4096"):
        compose(many.commitment, many.digests, lengths, ["l"], labels)
    with pytest.raises(Malformed):
        compose(DATA.commitment, DATA.digests, LENGTHS, ["l"], [{"l": "\ud800"}] * 30)


def test_a_missing_field_is_a_label_of_its_own() -> None:
    made = compose(DATA.commitment, DATA.digests, LENGTHS, ["licence", "absent"], LABELS)
    assert {group.labels["absent"] for group in made.groups} == {"(none)"}


@pytest.mark.parametrize(
    ("value", "label"),
    [(None, "(none)"), ("MIT", "MIT"), ("", ""), (True, "true"), (3, "3"), (2.50, "2.5"), (1e21, "1e+21")],
)
def test_scalars_become_labels(value: Any, label: str) -> None:
    assert label_of(value) == label


def test_lists_and_objects_are_no_labels() -> None:
    for value in ([], {}, b"", np.zeros(2)):
        with pytest.raises(Malformed, match="label"):
            label_of(value)
