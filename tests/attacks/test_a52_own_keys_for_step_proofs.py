"""A52, what the policy decides: the prover ships a circuit, a key or a reference string of their own."""

from __future__ import annotations

from typing import Any

from simulated_release import Simulation, failed, unchecked


def level_of_steps(report: Any) -> str | None:
    return next(item.found for item in report.policy.requirements if item.claim == "steps-proven")


def test_a_circuit_that_the_policy_does_not_pin_is_not_believed() -> None:
    simulation = Simulation().bend("policy", lambda policy: policy["zk"].update(circuits=["ab" * 32]))
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert {"circuit", "step-proof"} <= unchecked(report)


def test_a_reference_string_that_the_policy_does_not_pin_is_not_believed() -> None:
    report = Simulation().bend("policy", lambda policy: policy["zk"].update(srs=[])).verify()
    assert report.verdict == "INCOMPLETE"
    assert "srs" in unchecked(report)


def test_a_local_reference_string_never_reaches_a_level() -> None:
    report = (
        Simulation().bend("policy", lambda policy: policy["zk"]["srs"][0].update({"class": "insecure-local"})).verify()
    )
    assert report.verdict == "INCOMPLETE"
    assert level_of_steps(report) == "declared"


def test_a_policy_cannot_call_any_file_the_public_ceremony() -> None:
    report = (
        Simulation().bend("policy", lambda policy: policy["zk"]["srs"][0].update({"class": "public-ceremony"})).verify()
    )
    assert report.verdict == "INCOMPLETE"
    assert level_of_steps(report) == "declared"


def test_another_circuit_than_the_pre_committed_one_is_denied() -> None:
    """Both are pinned by the policy; the run promised the other one, with another learning rate."""

    def other(precommit: dict[str, Any]) -> None:
        from pot.recording.config import config_digest

        precommit["config"]["circuit_sha256"] = "cd" * 32
        precommit["config_blake3"] = config_digest(precommit["config"])

    report = Simulation().bend("child.precommit", other).verify()
    assert report.verdict == "DENY"
    assert "circuit" in failed(report)


def test_another_key_under_the_circuits_name_is_not_there() -> None:
    simulation = Simulation()

    def swap(objects: dict[str, bytes]) -> None:
        objects[simulation.circuit.parts[0].vk_sha256] = b"a key of the prover"

    report = simulation.bend("objects", swap).verify()
    assert report.verdict == "INCOMPLETE"
    assert "circuit" in unchecked(report)


def test_another_program_under_the_circuits_name_is_not_there() -> None:
    """The program says which step the circuit is of; without its digest any other could be shown to who pins it."""
    simulation = Simulation()
    other = simulation.kit.program.model_copy(update={"label": "another step"})

    def swap(objects: dict[str, bytes]) -> None:
        objects[simulation.circuit.program_sha256] = other.to_bytes()

    report = simulation.bend("objects", swap).verify()
    assert report.verdict == "INCOMPLETE"
    assert "circuit" in unchecked(report)


def test_no_policy_means_no_circuit() -> None:
    from attest.verdict.verify import verify

    report = verify(Simulation().release(), None)
    assert report.verdict == "INCOMPLETE"
    assert "circuit" in unchecked(report)
