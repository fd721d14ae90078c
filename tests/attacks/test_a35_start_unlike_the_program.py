"""A35: a fine-tuning whose first weights are the parent's, while the rest of its first state is the forger's choice.

Two ways: generators, optimizer or frozen parameters that the program does not make, which an auditor who made the first
state again has said; and a frozen base (parameters that no optimizer holds) other than the parent's.
"""

from __future__ import annotations

from typing import Any

import pytest
from simulated_release import ZERO, Simulation, failed

from attest.verdict import run
from attest.verdict.report import Report
from pot.commitments.state import state_digest
from pot.recording.config import config_digest

OWN, OTHER = "f0" * 32, "f1" * 32


def about_the_start(report: Report) -> str:
    return " ".join(f.detail for f in report.findings if f.code == "initial-weights" and f.subject.startswith("child"))


@pytest.mark.parametrize("which", [0, 1])
def test_another_first_state_than_the_programs_is_denied(which: int) -> None:
    def bend(results: list[dict[str, Any]]) -> None:
        detail = "the regenerated initial state differs in: frozen, optimizer"
        results[which].update(init="MISMATCH", init_detail=detail)

    report = Simulation().bend("child.audits", bend).verify()
    assert report.verdict == "DENY"
    assert "initial-weights" in failed(report)
    assert "Argus made another" in about_the_start(report)


def test_nothing_else_stops_it() -> None:
    """An auditor who did not make it again says nothing, and the weights alone are the parent's."""
    bend: Any = lambda results: [result.update(init="NOT_CHECKED") for result in results] and None  # noqa: E731
    assert Simulation().bend("child.audits", bend).verify().verdict == "PASS"


def frozen(simulation: Simulation, name: str, digest: str) -> Simulation:
    """The model's transcript with a component `frozen` beside the others."""

    def bend(events: list[dict[str, Any]]) -> None:
        previous, config = ZERO, config_digest(simulation.models[name].precommit["config"])
        for event in events:
            if event["type"] == "checkpoint":
                event["components"]["frozen"] = digest
                event["previous_state_blake3"] = previous
                previous = state_digest(event["components"], int(event["step"]), config, previous)
            if event["type"] in ("checkpoint", "end"):
                event["state_blake3"] = previous

    return simulation.bend(f"{name}.events", bend)


def judged(bases: dict[str, str]) -> Report:
    simulation = Simulation()
    for name, digest in bases.items():
        frozen(simulation, name, digest)
    return simulation.verify()


ANOTHER_BASE = [{"parent": OWN, "child": OTHER}, {"child": OTHER}, {"parent": OWN}]


@pytest.mark.parametrize("bases", ANOTHER_BASE, ids=["another", "one that the parent has not", "none any more"])
def test_another_frozen_base_than_the_parents_is_not_its_model(bases: dict[str, str]) -> None:
    report = judged(bases)
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert "frozen parameters" in about_the_start(report)
    assert report.certificate is not None
    own = [claim for claim in report.claims if claim.certificate_sha256 == report.certificate.certificate_sha256]
    assert {claim.level for claim in own} == {"committed"}


@pytest.mark.parametrize("bases", ANOTHER_BASE)
def test_without_that_check_it_would_pass(bases: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_other_base", lambda *_: None)
    assert judged(bases).verdict == "PASS"


def test_the_parents_own_base_passes_and_is_named_as_what_is_not_shown() -> None:
    report = judged({"parent": OWN, "child": OWN})
    assert report.verdict == "PASS"
    assert "frozen-base" in {item.code for item in report.not_shown}
    assert "frozen-base" not in {item.code for item in judged({}).not_shown}
