"""A35: a benign parent is named, but another W_0 was used."""

from __future__ import annotations

from typing import Any

from simulated_release import Simulation, failed, integers, sha256_hex, weights


def test_integer_weights_of_another_model_as_the_start_are_denied() -> None:
    """The operation is declared on the true parent; the transcript begins elsewhere."""
    simulation = Simulation()

    def other_parent_output(predicate: dict[str, Any]) -> None:
        quantise = predicate["operations"][0]
        parent = simulation.models["parent"].released
        quantise["output_sha256"] = simulation.put(integers(parent) + b"")

    # the events are made from other weights than the declared operation gives
    real = simulation._events

    def lying_events(name: str, *rest: Any) -> Any:
        if name == "child":
            honest = simulation.models["parent"].released
            simulation.models["parent"].released = weights("stolen", 3)
            try:
                return real(name, *rest)
            finally:
                simulation.models["parent"].released = honest
        return real(name, *rest)

    simulation._events = lying_events  # type: ignore[method-assign]
    report = simulation.bend("child.predicate", other_parent_output).verify()
    assert report.verdict == "DENY"
    assert failed(report) == {"initial-weights", "requirement"}


def test_the_operation_from_another_model_is_denied() -> None:
    """The start follows from the declared input, but that input is not the parent's release."""
    simulation = Simulation()

    def other_input(predicate: dict[str, Any]) -> None:
        stolen = weights("stolen", 3)
        quantise = predicate["operations"][0]
        quantise["input_sha256"] = simulation.put(stolen)
        quantise["output_sha256"] = simulation.put(integers(stolen))

    report = simulation.bend("child.predicate", other_input).verify()
    assert report.verdict == "DENY"
    assert "initial-weights" in failed(report)


def test_a_parent_that_the_pre_commitment_does_not_name_is_denied() -> None:
    def other_parent(predicate: dict[str, Any]) -> None:
        predicate["inputs"]["parents"] = [
            {"certificate_sha256": sha256_hex(b"benign"), "model_sha256": sha256_hex(b"model")}
        ]

    report = Simulation().bend("child.predicate", other_parent).verify()
    assert report.verdict == "DENY"
    assert "inputs" in failed(report)


def test_hiding_the_parent_is_denied() -> None:
    def hide(predicate: dict[str, Any]) -> None:
        predicate["inputs"]["parents"] = []

    report = Simulation().bend("child.predicate", hide).verify()
    assert report.verdict == "DENY"
    assert "inputs" in failed(report)


def test_a_parent_certificate_about_another_model_is_denied() -> None:
    def other_model(value: dict[str, Any]) -> None:
        for parent in value["inputs"]["parents"] if "inputs" in value else [value["parent"]]:
            parent["model_sha256"] = sha256_hex(b"another model")

    simulation = Simulation().bend("child.precommit", other_model).bend("child.predicate", other_model)
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "parent" in failed(report)


def test_first_weights_that_an_auditor_could_not_make_again_are_denied() -> None:
    report = Simulation().bend("parent.audits", lambda results: results[0].update(init="MISMATCH")).verify()
    assert report.verdict == "DENY"
    assert "initial-weights" in failed(report)
