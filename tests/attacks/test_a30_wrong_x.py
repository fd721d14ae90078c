"""A30 in a certificate: another X under X's name, an empty X, digests that could never match."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_data import add_dataset
from simulated_release import Simulation, commitment_of, exclusion_file, failed, unchecked


def exclusion(predicate: dict[str, Any]) -> dict[str, Any]:
    return next(claim for claim in predicate["claims"] if claim["type"] == "dataset-exclusion")


def test_x2_sold_as_x1_is_denied() -> None:
    """X2's commitment and digests in the place of X1's, the non-membership proof kept."""
    simulation = Simulation()

    def swap(predicate: dict[str, Any]) -> None:
        x2, digests = commitment_of("exclusion", ["x2"] * 3 + ["child 1"])
        exclusion(predicate)["exclusion_sha256"] = simulation.put(x2.to_bytes())
        exclusion(predicate)["digests_sha256"] = simulation.put(digests)

    report = simulation.bend("child.predicate", swap).verify()
    assert report.verdict == "DENY"
    assert {"non-membership", "lineage-claim"} <= failed(report)


def test_a_true_claim_about_another_set_is_not_what_the_policy_asks() -> None:
    simulation = Simulation()
    asked = simulation.policy()
    simulation.x1 = commitment_of("exclusion", ["another set"])
    report = simulation.verify(asked)
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}


@pytest.mark.parametrize("role", ["training", "exclusion"])
def test_digests_that_are_not_of_the_set_are_denied(role: str) -> None:
    simulation = Simulation()

    def other(predicate: dict[str, Any]) -> None:
        exclusion(predicate)["digests_sha256"] = simulation.put(commitment_of(role, ["never"] * 12)[1])

    report = simulation.bend("child.predicate", other).verify()
    assert report.verdict == "DENY"
    assert "exclusion-set" in failed(report)


def test_a_training_commitment_is_no_exclusion_set() -> None:
    simulation = Simulation()

    def other(predicate: dict[str, Any]) -> None:
        commitment, digests = simulation.training["parent"]
        exclusion(predicate)["exclusion_sha256"] = simulation.put(commitment.to_bytes())
        exclusion(predicate)["digests_sha256"] = simulation.put(digests)

    report = simulation.bend("child.predicate", other).verify()
    assert report.verdict == "DENY"
    assert "exclusion-set" in failed(report)


def test_a_proof_against_other_data_than_the_run_used_is_denied() -> None:
    """A31 in a certificate: the clean dataset is proven against, another one was pre-committed."""
    simulation = Simulation()
    clean, digests = commitment_of("training", [f"clean {number}" for number in range(32)])

    def other(predicate: dict[str, Any]) -> None:
        x1, asked = simulation.x1
        simulation.put(clean.to_bytes())
        exclusion(predicate)["training_sha256"] = clean.sha256()
        exclusion(predicate)["proof_sha256"] = simulation.put(exclusion_file(clean, digests, x1, asked))

    report = simulation.bend("child.predicate", other).verify()
    assert report.verdict == "DENY"
    assert "exclusion-training" in failed(report)


def test_another_view_is_denied() -> None:
    """Digests of two views never match, so a proof across views would always succeed."""
    simulation = Simulation()
    simulation.x1 = commitment_of("exclusion", [f"x1 {number}" for number in range(12)], view="json/1")
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert {"exclusion-training", "non-membership"} <= failed(report)


def test_a_dataset_that_is_not_proven_against_is_denied() -> None:
    """A second pre-committed dataset, which the exclusion passes over in silence."""
    simulation = Simulation()
    add_dataset(simulation)
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "exclusion-training" in failed(report)


def test_data_left_out_of_the_inputs_is_denied() -> None:
    def other(predicate: dict[str, Any]) -> None:
        predicate["inputs"]["datasets"] = [{"name": "records", "commitment_sha256": "ab" * 32}]

    report = Simulation().bend("child.predicate", other).verify()
    assert report.verdict == "DENY"
    assert "inputs" in failed(report)
