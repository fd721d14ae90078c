"""A36: a merge with an undeclared model, or a further edit, is called a conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
from simulated_release import Simulation, failed, floats, model_component, serialise, unchecked, weights

from pot.commitments.state import entries_from_safetensors


def merged(data: bytes) -> bytes:
    """Float weights that are a little more than the conversion makes them."""
    arrays = {e.name: np.frombuffer(e.data, "<f4").reshape(e.shape) for e in entries_from_safetensors(data)}
    return serialise({name: (array + np.float32(2.0**-20)).astype("<f4") for name, array in arrays.items()})


def test_a_release_that_is_not_the_conversion_of_the_last_state_is_denied(monkeypatch: Any) -> None:
    monkeypatch.setattr("simulated_release.floats", lambda data: merged(floats(data)))
    report = Simulation().verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"operation"}


def test_a_release_without_declared_conversion_is_not_shown() -> None:
    def drop(predicate: dict[str, Any]) -> None:
        predicate["operations"] = predicate["operations"][:1]

    report = Simulation().bend("child.predicate", drop).verify()
    assert report.verdict == "INCOMPLETE"
    assert "released-weights" in unchecked(report)


def test_a_conversion_of_other_integers_than_the_last_state_is_denied(monkeypatch: Any) -> None:
    """The declared operation is true, but its input is not what the run ended with (A16, A17)."""
    simulation = Simulation()
    edited = serialise({"0.weight": np.full((3, 4), 7, "<i8"), "0.bias": np.full(3, 7, "<i8")})
    monkeypatch.setattr("simulated_release.floats", lambda data: floats(edited))

    def other(predicate: dict[str, Any]) -> None:
        predicate["operations"][1]["input_sha256"] = simulation.put(edited)

    report = simulation.bend("child.predicate", other).verify()
    assert report.verdict == "DENY"
    assert "released-weights" in failed(report)
    assert "operation" not in failed(report)


def test_tensors_of_another_kind_are_denied() -> None:
    simulation = Simulation()

    def floats_as_integers(predicate: dict[str, Any]) -> None:
        predicate["operations"][1]["input_sha256"] = simulation.put(weights("any", 1))

    report = simulation.bend("child.predicate", floats_as_integers).verify()
    assert report.verdict == "DENY"
    assert "operation" in failed(report)
    assert "takes I64" in report.reason


def test_extra_training_after_the_last_checkpoint_is_denied() -> None:
    """A16: the parent's release is not the end of its transcript."""
    simulation = Simulation()

    def more(events: list[dict[str, Any]]) -> None:
        end, last = events[-1], events[-2]
        assert last["components"]["model"] == end["model_blake3"]
        other = model_component(weights("fine-tuned on", 9))
        last["components"]["model"] = end["model_blake3"] = other

    report = simulation.bend("parent.events", more).verify()
    assert report.verdict == "DENY"
    assert {"chain", "released-weights"} <= failed(report)
