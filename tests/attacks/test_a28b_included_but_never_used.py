"""A28, the other way round: the set that should be in is committed to, but not used, or in other data, or another set.

Each forgery passes, or its proof holds, once the check that catches it is taken out.
"""

from __future__ import annotations

from typing import Any

import pytest
from simulated_data import add_inclusion, claim_of, in_view
from simulated_release import Simulation, commitment_of, failed, unchecked

from attest.verdict import inclusion as step_10
from pot.canonical import derive, sha256_hex
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.data.commit import Committed
from pot.data.include import Missing, include
from pot.data.include_verify import check_inclusion

NAMES = [f"child {number}" for number in range(36)]  # 4 batches of 8 a pass; 4 records are dropped each time


def unused() -> list[str]:
    """The records that no batch of the child's run holds."""
    simulation = simulation_of(NAMES)
    simulation.release()
    precommit = sha256_hex(next(data for data in simulation.objects.values() if is_precommit(data, simulation)))
    seed = run_seed(precommit, derive("test/nonce", b"child"))
    used = {record for step in range(1, 7) for record in batch_records(seed, 36, 8, step)[2]}
    return [name for number, name in enumerate(NAMES) if number not in used]


def is_precommit(data: bytes, simulation: Simulation) -> bool:
    from pot.canonical import canonical_bytes

    return data == canonical_bytes(simulation.models["child"].precommit)


def simulation_of(names: list[str]) -> Simulation:
    simulation = Simulation()
    simulation.training["child"] = commitment_of("training", names)
    return simulation


def never_used() -> Simulation:
    """Y stands in the dropped end of each pass: committed to, and in no batch."""
    simulation = simulation_of(NAMES)
    add_inclusion(simulation, unused())
    return simulation


def test_there_are_records_that_no_batch_holds() -> None:
    assert 0 < len(unused()) <= 4


def test_records_that_no_batch_holds_are_denied() -> None:
    report = never_used().verify()
    assert report.verdict == "DENY"
    assert failed(report) == {"inclusion-used", "requirement"}
    assert f"{len(unused())} of its records stand where no batch of the run reaches" in report.reason


def test_without_counting_uses_it_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_10, "least_uses", lambda seed, precommit, records: (0, 1))
    assert never_used().verify().verdict == "PASS"


def test_the_records_that_are_used_pass() -> None:
    simulation = simulation_of(NAMES)
    add_inclusion(simulation, [name for name in NAMES if name not in unused()])
    report = simulation.verify()
    assert report.verdict == "PASS"
    link = next(link for link in claim_of(report, "dataset-inclusion").links if link.code == "inclusion-used")
    assert "at least once" in link.detail


def claim(predicate: dict[str, Any]) -> dict[str, Any]:
    return next(claim for claim in predicate["claims"] if claim["type"] == "dataset-inclusion")


def test_a_proof_in_other_data_than_the_run_used_is_denied() -> None:
    """The safety set is in a dataset that was committed to and not trained on. The inclusion proof itself holds."""
    simulation = Simulation()
    y = add_inclusion(simulation, ["child 1", "child 2"])
    other = Committed(*commitment_of("training", ["child 1", "child 2", "and more"]))
    made = include(other, y)
    assert not isinstance(made, Missing)
    assert check_inclusion(other.commitment, y.commitment, y.listing, made.to_bytes()) == [0, 1]

    def elsewhere(predicate: dict[str, Any]) -> None:
        claim(predicate)["training_sha256"] = simulation.put(other.commitment.to_bytes())
        claim(predicate)["proof_sha256"] = simulation.put(made.to_bytes())

    report = simulation.bend("child.predicate", elsewhere).verify()
    assert report.verdict == "DENY"
    assert "membership" in failed(report)
    assert "data that the run did not pre-commit" in report.reason


def test_another_y_under_ys_name_is_denied() -> None:
    simulation = Simulation()
    add_inclusion(simulation, ["child 1", "child 2"])
    y2, digests = commitment_of("inclusion", ["child 1", "never trained on"])

    def swap(predicate: dict[str, Any]) -> None:
        claim(predicate)["inclusion_sha256"] = simulation.put(y2.to_bytes())
        claim(predicate)["digests_sha256"] = simulation.put(digests)

    report = simulation.bend("child.predicate", swap).verify()
    assert report.verdict == "DENY"
    assert "membership" in failed(report)


@pytest.mark.parametrize("role", ["exclusion", "training"])
def test_a_set_of_another_role_is_denied(role: str) -> None:
    simulation = Simulation()
    add_inclusion(simulation, ["child 1", "child 2"])
    other, digests = commitment_of(role, ["child 1", "child 2"])

    def swap(predicate: dict[str, Any]) -> None:
        claim(predicate)["inclusion_sha256"] = simulation.put(other.to_bytes())
        claim(predicate)["digests_sha256"] = simulation.put(digests)

    report = simulation.bend("child.predicate", swap).verify()
    assert report.verdict == "DENY"
    assert "inclusion-set" in failed(report)


def test_digests_that_are_not_of_the_set_are_denied() -> None:
    simulation = Simulation()
    add_inclusion(simulation, ["child 1", "child 2"])

    def swap(predicate: dict[str, Any]) -> None:
        claim(predicate)["digests_sha256"] = simulation.put(commitment_of("inclusion", ["child 3", "child 4"])[1])

    report = simulation.bend("child.predicate", swap).verify()
    assert report.verdict == "DENY"
    assert "inclusion-set" in failed(report)


def test_a_true_claim_about_another_set_is_not_what_the_policy_asks() -> None:
    simulation = Simulation()
    add_inclusion(simulation, ["child 1", "child 2"])
    simulation.claimants.clear()
    add_inclusion(simulation, ["child 3"], level=None)
    report = simulation.verify()
    assert (report.verdict, unchecked(report)) == ("INCOMPLETE", {"requirement"})


def test_a_set_seen_through_another_view_is_denied() -> None:
    simulation = Simulation()
    add_inclusion(simulation, ["child 1"])
    y = in_view("inclusion", ["child 1"], "text/1")

    def swap(predicate: dict[str, Any]) -> None:
        claim(predicate)["inclusion_sha256"] = simulation.put(y.commitment.to_bytes())
        claim(predicate)["digests_sha256"] = simulation.put(bytes(y.listing))

    report = simulation.bend("child.predicate", swap).verify()
    assert report.verdict == "DENY"
    assert any("view-mismatch" in finding.detail for finding in report.findings)


def test_one_set_named_many_times_is_checked_once() -> None:
    """Sixty claims about one set would cost sixty times as much to check."""
    simulation = simulation_of(NAMES)
    add_inclusion(simulation, sorted(set(NAMES) - set(unused()))[:5])

    def repeat(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "dataset-inclusion")
        predicate["claims"] += [claim] * 20

    report = simulation.bend("child.predicate", repeat).verify()
    assert report.verdict == "PASS"
    assert sum(claim.type == "dataset-inclusion" for claim in report.claims) == 1

    def rename(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "dataset-inclusion")
        predicate["claims"].append({**claim, "name": "another"})

    report = simulation.bend("child.predicate", rename).verify()
    assert report.verdict == "DENY"
    assert "inclusion-set" in failed(report)
