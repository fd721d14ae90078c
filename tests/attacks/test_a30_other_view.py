"""A30 in a certificate, other views: a proof against data that is not the run's, or that means something else.

Each forgery passes once the check that catches it is taken out.
"""

from __future__ import annotations

from typing import Any

import pytest
from simulated_data import add_dataset, claim_of, data_audit, in_view, names_of, pin_of, see_through
from simulated_release import Simulation, data_files, failed, shard_of, unchecked

from attest.verdict import data_ties, exclusion, requirements, sets
from attest.verdict.report import ExclusionSet
from pot.commitments.dataset import Reading
from pot.commitments.hiding import Hiding

MODELS = ("parent", "child")
LIVE: dict[str, Any] = {"shards": [], "reading": Reading(source="dataset")}


def other_files() -> Simulation:
    """The other view is of clean files; the run trained on others."""
    simulation = Simulation()
    see_through(simulation, shards={name: [shard_of([*names_of(name)[:-1], "clean"])] for name in MODELS})
    return simulation


def test_other_files_are_denied() -> None:
    report = other_files().verify()
    assert report.verdict == "DENY"
    assert failed(report) == {"same-shards", "exclusion-training", "lineage-claim", "requirement"}
    assert "data that the run did not pre-commit: records has another file 1" in report.reason


def test_without_the_comparison_of_files_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "_difference", lambda promised, other: None)
    assert other_files().verify().verdict == "PASS"


def more_files() -> Simulation:
    """One file more on the other side: the proof would be about part of other data."""
    simulation = Simulation()
    shards = {}
    for name in MODELS:
        whole = shard_of(names_of(name))
        empty = shard_of([]).model_copy(update={"name": "second"})
        shards[name] = [whole, empty]
    see_through(simulation, shards=shards)
    return simulation


def test_a_file_more_is_denied() -> None:
    report = more_files().verify()
    assert report.verdict == "DENY"
    assert "records has 1 files, not 2" in report.reason


def skipping() -> Simulation:
    """The same files, but the records with X are called unreadable in the other view."""
    simulation = Simulation()
    see_through(simulation, reading=Reading(skipped="5"))
    return simulation


def test_records_left_out_of_one_side_alone_are_denied() -> None:
    report = skipping().verify()
    assert report.verdict == "DENY"
    assert "same-shards" in failed(report)
    assert "leaves out records that could not be read" in report.reason


def test_without_the_comparison_of_what_is_left_out_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "_counts", lambda commitment: (0, 0))
    assert skipping().verify().verdict == "PASS"


def without_files() -> Simulation:
    """Commitments to live datasets list no files; two empty lists are the same list."""
    simulation = Simulation()
    for name in MODELS:
        commitment, digests = simulation.training[name]
        simulation.training[name] = (commitment.model_copy(update=LIVE), digests)
    see_through(simulation, shards={name: [] for name in MODELS}, reading=LIVE["reading"])
    return simulation


def test_two_empty_lists_of_files_are_no_tie() -> None:
    report = without_files().verify()
    assert report.verdict == "DENY"
    assert "lists no files" in report.reason


def test_without_asking_for_files_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = without_files()
    monkeypatch.setattr(sets, "_difference", lambda promised, other: None)
    monkeypatch.setattr(sets, "_lists_files", lambda commitment: True)
    monkeypatch.setattr(data_ties, "_lists_inputs", lambda case, sha256: True)
    monkeypatch.setattr(exclusion, "other_fields", lambda case, sha256: set())
    assert simulation.verify().verdict == "PASS"


def test_an_own_commitment_without_files_ties_nothing() -> None:
    simulation = Simulation()
    for name in MODELS:
        commitment, digests = simulation.training[name]
        simulation.training[name] = (commitment.model_copy(update=LIVE), digests)
    see_through(simulation)
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "same-shards" in failed(report)


def test_the_same_files_in_the_same_view_have_the_same_roots() -> None:
    """A second commitment with clean records, the files of the real one, and nothing else to tell them apart."""
    simulation = Simulation()
    see_through(simulation, "pixels/1")
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "has other roots for the same files in the same view" in report.reason


def titles() -> Simulation:
    """The other view looked at the titles; the policy speaks of the texts."""
    simulation = Simulation()
    see_through(simulation, reading=Reading(fields={"text": "title"}))
    return simulation


def test_a_claim_about_titles_is_none_about_texts() -> None:
    report = titles().verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}


def test_without_the_field_in_the_pin_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_the_set(claim: Any, pin: Any) -> bool:
        named = claim.exclusion or claim.inclusion
        return pin is None or (named is not None and requirements._same_set(named, pin))

    monkeypatch.setattr(requirements, "_is_meant", only_the_set)
    assert titles().verify().verdict == "PASS"


def relabelled() -> Simulation:
    """X's plain digests under the label of a key: keyed training digests never match them."""
    simulation = Simulation()
    see_through(simulation, "text/1", hiding=Hiding(method="blake3-keyed/1", id="cd" * 32))
    return simulation


def test_a_plain_root_under_a_keys_label_is_not_the_pinned_set() -> None:
    report = relabelled().verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}


def test_without_the_key_in_the_pin_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def but_the_key(named: ExclusionSet, pin: Any) -> bool:
        return (named.view, named.records, named.root_blake3) == (pin.view, pin.records, pin.root_blake3)

    monkeypatch.setattr(requirements, "_same_set", but_the_key)
    assert relabelled().verify().verdict == "PASS"


def test_a_key_on_one_side_alone_is_denied() -> None:
    simulation = Simulation()
    seen = see_through(simulation, "text/1")
    for name in MODELS:
        hiding = Hiding(method="blake3-keyed/1", id="cd" * 32)
        hidden = in_view("training", names_of(name), "text/1", hiding=hiding).commitment
        simulation.bend(f"{name}.predicate", lambda predicate, hidden=hidden: swap(simulation, predicate, hidden))
    seen.audited.clear()
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert any("hiding-mismatch" in finding.detail for finding in report.findings)


def swap(simulation: Simulation, predicate: dict[str, Any], hidden: Any) -> None:
    claim = next(claim for claim in predicate["claims"] if claim.get("name") == "other")
    claim["training_sha256"] = simulation.put(hidden.to_bytes())


def clean_list_of_files() -> Simulation:
    """The pre-commitment's list of files is of clean ones; its roots, and what the program reads, are of others.

    The auditor makes the other view again from the clean files that it lists, and finds it right.
    """
    simulation = Simulation()
    for name in MODELS:
        commitment, digests = simulation.training[name]
        listed = shard_of([*names_of(name)[:-1], "clean"])
        simulation.training[name] = (commitment.model_copy(update={"shards": [listed]}), digests)
        read = data_files("records", commitment)
        simulation.bend(f"{name}.precommit", lambda precommit, read=read: precommit["program"].update(data_files=read))
    see_through(simulation, shards={name: simulation.training[name][0].shards for name in MODELS})
    return simulation


def test_a_list_of_files_that_is_not_the_records_ties_nothing() -> None:
    report = clean_list_of_files().verify()
    assert report.verdict == "INCOMPLETE"
    assert "no accepted auditor tied the files" in report.reason
    assert claim_of(report, "dataset-exclusion", "other").level == "declared"


def test_without_the_tie_of_files_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_ties, "_files_tied", lambda case, sha256: True)
    assert clean_list_of_files().verify().verdict == "PASS"


def test_a_data_audit_of_the_own_commitment_from_its_files_ties_them() -> None:
    """Honest: the program is not replayable by path, but an auditor made both commitments again from the files."""
    simulation = Simulation()
    for name in MODELS:
        simulation.bend(f"{name}.precommit", lambda precommit: precommit["program"].update(data_files=[]))
    see_through(simulation)
    assert simulation.verify().verdict == "INCOMPLETE"
    simulation.data_auditors.append(lambda name: [data_audit(simulation.training[name][0])])
    assert simulation.verify().verdict == "PASS"


def test_a_second_dataset_without_a_proof_is_denied() -> None:
    """Another view of one dataset, and silence about the other."""
    simulation = Simulation()
    see_through(simulation)
    add_dataset(simulation)
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "exclusion-training" in failed(report)


def test_an_exclusion_set_of_another_view_than_the_proofs_is_denied() -> None:
    simulation = Simulation()
    see_through(simulation)
    x = in_view("exclusion", ["y 0", "y 1", "y 2"], "text/1")

    def other(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim.get("name") == "other")
        claim["exclusion_sha256"] = simulation.put(x.commitment.to_bytes())
        claim["digests_sha256"] = simulation.put(bytes(x.listing))

    report = simulation.bend("child.predicate", other).verify()
    assert report.verdict == "DENY"
    assert {"exclusion-training", "non-membership"} <= failed(report)


def test_an_exclusion_set_in_the_place_of_the_training_data_is_denied() -> None:
    simulation = Simulation()
    seen = see_through(simulation)

    def other(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim.get("name") == "other")
        claim["training_sha256"] = seen.x.commitment.sha256()

    report = simulation.bend("child.predicate", other).verify()
    assert report.verdict == "DENY"
    assert "its role is exclusion" in report.reason


def test_a_missing_commitment_makes_nothing_false() -> None:
    simulation = Simulation()
    seen = see_through(simulation)
    gone = seen.training["child"].commitment.sha256()
    report = simulation.bend("objects", lambda objects: objects.pop(gone) and None).verify()
    assert (report.verdict, failed(report)) == ("INCOMPLETE", set())
    assert {"same-shards", "exclusion-training", "non-membership"} <= unchecked(report)


def test_the_pin_is_what_the_policy_says() -> None:
    """The honest other view, asked for under another root."""
    simulation = Simulation()
    seen = see_through(simulation)
    pin = {**pin_of(seen.x.commitment), "root_blake3": "ab" * 32}
    simulation.bend("policy", lambda policy: policy["require"][-1].update(exclusion=pin))
    assert simulation.verify().verdict == "INCOMPLETE"
