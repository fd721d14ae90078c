"""A26 and A56 in a composition: sums that hide records, sums of other data, labels that nobody allowed.

Each forgery passes once the check that catches it is taken out.
"""

from __future__ import annotations

from typing import Any

import pytest
from simulated_data import add_composition, add_dataset, claim_of, data_audit
from simulated_release import Simulation, commitment_of, failed, unchecked

from attest.verdict import requirements
from pot.commitments.sumtree_verify import Sums, root_of
from pot.data import composition_verify
from pot.data.composition_verify import Composition, group_identity

ALLOWED = {"licence": ["MIT", "CC0-1.0"]}


def replaced(simulation: Simulation, forged: Composition) -> Simulation:
    """The child's composition, exchanged."""

    def other(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "data-composition")
        claim["composition_sha256"] = simulation.put(forged.to_bytes())

    return simulation.bend("child.predicate", other)


def with_groups(composition: Composition, groups: list[Any], **changed: Any) -> Composition:
    """The composition with other groups and the root over them."""
    leaves = [
        (group_identity(g.labels, g.root_blake3), Sums(int(g.records), int(g.bytes), int(g.tokens or "0")))
        for g in groups
    ]
    return composition.model_copy(update={"groups": groups, "root_blake3": root_of(leaves)[0].hex(), **changed})


def on_word(simulation: Simulation) -> Simulation:
    """No auditor made the forged composition again; the policy is content with the developer's word."""
    simulation.data_auditors.clear()
    return simulation.bend("policy", lambda policy: policy["require"][-1].update(level="declared"))


def hiding_a_group() -> Simulation:
    """The group under a licence that is not allowed is left out, and the totals are made to fit."""
    simulation = Simulation()
    honest = add_composition(simulation, licences=("CC0-1.0", "GPL-3.0", "MIT"), only=ALLOWED)
    left = [group for group in honest.groups if group.labels["licence"] != "GPL-3.0"]
    totals = honest.totals.model_copy(
        update={name: str(sum(int(getattr(group, name)) for group in left)) for name in ("records", "bytes")}
    )
    return on_word(replaced(simulation, with_groups(honest, left, totals=totals)))


def test_a_group_left_out_is_denied() -> None:
    report = hiding_a_group().verify()
    assert report.verdict == "DENY"
    assert failed(report) == {"composition", "requirement"}
    assert "composition-sums" in report.reason


def test_without_the_comparison_of_sums_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition_verify, "_check_sums", lambda commitment, composition: None)
    assert hiding_a_group().verify().verdict == "PASS"


def of_other_data() -> Simulation:
    """The composition of clean data, which the run did not commit to."""
    simulation, other = Simulation(), Simulation()
    add_composition(simulation, only=ALLOWED)
    other.training["child"] = commitment_of("training", [f"clean {number}" for number in range(32)])
    return on_word(replaced(simulation, add_composition(other)))


def test_a_composition_of_other_data_is_denied() -> None:
    report = of_other_data().verify()
    assert report.verdict == "DENY"
    assert "composition-commitment" in report.reason


def test_without_the_comparison_of_commitments_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition_verify, "check_composition", lambda commitment, composition: None)
    assert of_other_data().verify().verdict == "PASS"


def test_a_claim_that_names_other_data_is_denied() -> None:
    """The composition is true of data that the run did not pre-commit, and the claim says so."""
    simulation, other = Simulation(), Simulation()
    add_composition(simulation)
    clean = commitment_of("training", [f"clean {number}" for number in range(32)])
    other.training["child"] = clean
    forged = add_composition(other)

    def name_it(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "data-composition")
        claim["training_sha256"] = simulation.put(clean[0].to_bytes())

    report = replaced(simulation, forged).bend("child.predicate", name_it).verify()
    assert report.verdict == "DENY"
    assert "data that the run did not pre-commit" in report.reason


def with_another_label() -> Simulation:
    simulation = Simulation()
    add_composition(simulation, licences=("CC0-1.0", "GPL-3.0", "MIT"), only=ALLOWED)
    return simulation


def test_a_label_that_the_policy_does_not_allow_fails_its_requirement() -> None:
    report = with_another_label().verify()
    assert (report.verdict, failed(report)) == ("DENY", {"requirement"})
    assert "dataset records holds records whose licence is 'GPL-3.0'" in report.reason


def test_without_the_comparison_of_labels_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "first_other_label", lambda composition, only: None)
    assert with_another_label().verify().verdict == "PASS"


def test_labels_are_compared_before_they_are_cleaned() -> None:
    """A label that only looks like an allowed one."""
    simulation = Simulation()
    add_composition(simulation, licences=("CC0-1.0", "MIT\u200b"), only=ALLOWED)
    report = simulation.verify()
    assert (report.verdict, failed(report)) == ("DENY", {"requirement"})
    shown = claim_of(report, "data-composition").composition
    assert shown is not None
    assert [group.labels for group in shown.groups] == [["CC0-1.0"], ["MIT"]]


def test_a_second_composition_does_not_outvote_the_first() -> None:
    """Two compositions of one dataset: the one with the label that is not allowed decides, whichever comes first."""
    simulation = with_another_label()
    add_composition(simulation, only=ALLOWED)
    assert simulation.verify().verdict == "DENY"


def test_a_dataset_without_composition_is_named() -> None:
    simulation = Simulation()
    add_composition(simulation, only=ALLOWED)
    second = add_dataset(simulation, as_input=True)
    simulation.data_auditors.append(lambda name: [data_audit(second)] if name == "child" else [])
    report = simulation.verify()
    result = next(item for item in report.policy.requirements if item.claim == "data-composition")  # type: ignore[union-attr]
    assert result.status == "not_checked"
    assert "for dataset second" in result.detail


def relabelled() -> Simulation:
    """Sums that add up, under labels that are not the data's; an accepted auditor found others."""
    simulation = Simulation()
    commitment, _ = simulation.training["child"]
    composition = add_composition(simulation, only=ALLOWED, level="declared", audited=False)
    simulation.data_auditors.append(
        lambda name: [data_audit(commitment, compositions_differ=[composition.sha256()])] if name == "child" else []
    )
    return simulation


def test_a_composition_that_an_auditor_could_not_make_again_is_denied() -> None:
    report = relabelled().verify()
    assert (report.verdict, failed(report)) == ("DENY", {"composition-tie", "requirement"})


def test_without_the_audit_only_the_developers_word_is_left() -> None:
    report = relabelled().bend("child.data_audits", lambda results: []).verify()
    assert report.verdict == "PASS"
    assert claim_of(report, "data-composition").level == "declared"


def test_a_missing_composition_makes_nothing_false() -> None:
    simulation = Simulation()
    gone = add_composition(simulation, only=ALLOWED).sha256()
    report = simulation.bend("objects", lambda objects: objects.pop(gone) and None).verify()
    assert (report.verdict, failed(report)) == ("INCOMPLETE", set())
    assert {"composition", "requirement"} <= unchecked(report)


def test_what_is_no_composition_is_denied() -> None:
    simulation = Simulation()
    add_composition(simulation)

    def other(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "data-composition")
        claim["composition_sha256"] = simulation.put(b"{}")

    report = simulation.bend("child.predicate", other).verify()
    assert report.verdict == "DENY"
    assert "composition" in failed(report)
