"""The verdict on honest bundles, and what its parts say; lies are under tests/attacks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from simulated_release import Simulation, failed, judge, unchecked

from attest.verdict.codes import CODES, NOT_SHOWN, STEPS, explain
from attest.verdict.verify import verify
from pot.errors import EnvironmentFailure, MissingExtra, UsageError


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation()


def test_an_honest_release_passes(simulation: Simulation) -> None:
    report = simulation.verify()
    assert report.verdict == "PASS"
    assert report.exit_code == 0
    assert failed(report) == unchecked(report) == set()
    assert [(item.model, item.depth, item.operation) for item in report.lineage] == [
        ("child", "0", "quantise/1"),
        ("parent", "1", None),
    ]


def test_a_claim_is_as_strong_as_its_weakest_link(simulation: Simulation) -> None:
    for claim in simulation.verify().claims:
        assert claim.level == min(
            (link.level for link in claim.links), key=["declared", "committed", "audited", "proved"].index
        )
        assert {link.code for link in claim.links} <= set(CODES)
    exclusion = next(claim for claim in simulation.verify().claims if claim.type == "dataset-exclusion")
    assert {link.code: link.level for link in exclusion.links if link.level != "proved"} == {
        "records-tie": "audited", "replay": "audited", "replay-coverage": "audited", "lineage-claim": "audited",
    }  # fmt: skip


def test_the_fifteen_steps_are_all_there(simulation: Simulation) -> None:
    report = simulation.verify()
    assert [step.number for step in report.steps] == [str(number) for number in range(1, 16)] == [str(n) for n in STEPS]
    assert {step.number for step in report.steps if step.status != "passed"} == {"4", "5", "14"}


def test_what_is_never_shown_is_always_said(simulation: Simulation) -> None:
    always = list(NOT_SHOWN)[:7]
    for report in (simulation.verify(), verify(simulation.release(), None)):
        assert [item.code for item in report.not_shown][:7] == always


def test_without_a_policy_nobody_is_believed(simulation: Simulation) -> None:
    report = verify(simulation.release(), None, step_verifier=judge)
    assert report.verdict == "INCOMPLETE"
    assert "pass --policy" in report.reason
    assert report.policy is None
    assert report.certificate is not None
    assert report.certificate.signer is None


def test_without_a_policy_what_is_false_is_still_false() -> None:
    simulation = Simulation().bend("files", lambda files: files.update(extra=b"x"))
    assert verify(simulation.release(), None).verdict == "DENY"


def test_a_seed_of_ones_own_lowers_provenance_and_is_said() -> None:
    simulation = Simulation(seed_source="self")
    report = simulation.verify()
    assert report.verdict == "PASS"
    assert {claim.level for claim in report.claims if claim.type == "training-provenance"} == {"committed"}
    assert {claim.level for claim in report.claims if claim.type == "dataset-exclusion"} == {"audited"}
    assert "seed-source-self" in {item.code for item in report.not_shown}


def test_a_nonce_that_no_accepted_auditor_gave_is_ones_own() -> None:
    simulation = Simulation().bend("parent.audits", lambda results: results[0].pop("seed_nonce") and None)
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}


def test_another_nonce_than_the_auditors_is_denied() -> None:
    simulation = Simulation().bend("parent.audits", lambda results: results[0]["seed_nonce"].update(nonce="ab" * 32))
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert "seed" in failed(report)


@pytest.mark.parametrize("which", [0, 1])
def test_two_nonces_for_one_pre_commitment_are_denied_whichever_was_used(which: int) -> None:
    """Who gets two may train with both and show the better run."""
    bend = Simulation().bend("child.audits", lambda results: results[which]["seed_nonce"].update(nonce="77" * 32))
    report = bend.verify()
    assert report.verdict == "DENY"
    assert "seed" in failed(report)


def test_a_missing_extra_is_not_checked_and_names_its_command(simulation: Simulation) -> None:
    def missing(*_: object) -> None:
        raise MissingExtra("zk", "checking step proofs")

    report = verify(simulation.release(), simulation.policy(), step_verifier=missing)
    assert report.verdict == "INCOMPLETE"
    assert "pip install 'pot-attest[zk]'" in report.reason


def test_an_engine_that_fails_shows_nothing_either_way(simulation: Simulation) -> None:
    def broken(*_: object) -> None:
        raise EnvironmentFailure("the engine ran past its limits")

    report = verify(simulation.release(), simulation.policy(), step_verifier=broken)
    assert report.verdict == "INCOMPLETE"
    assert "step-proof" in unchecked(report)


def test_the_report_depends_on_nothing_but_input_and_time(simulation: Simulation) -> None:
    release, policy = simulation.release(), simulation.policy()
    first, second = (
        verify(release, policy, now=datetime(2030, 1, day, tzinfo=UTC), step_verifier=judge) for day in (1, 2)
    )
    assert first.to_bytes() != second.to_bytes()
    assert first.model_copy(update={"time": None}).to_bytes() == second.model_copy(update={"time": None}).to_bytes()
    assert first.time == "2030-01-01T00:00:00Z"


def test_no_claims_at_all(simulation: Simulation) -> None:
    empty = Simulation().bend("lines", lambda lines: [])
    report = empty.verify(simulation.policy())
    assert (report.verdict, report.exit_code) == ("INCOMPLETE", 3)
    assert "accepted developer" in report.reason


def test_only_an_ancestors_certificate_is_about_another_model() -> None:
    """The child's certificate is taken out: the parent's is accepted, but about other files."""
    report = Simulation().bend("lines", lambda lines: lines[:2]).verify()
    assert report.verdict == "DENY"
    assert "subject" in failed(report)


def test_every_code_is_explained_and_belongs_to_a_step() -> None:
    for name, code in CODES.items():
        assert code.step in STEPS
        assert explain(name).startswith(name)
    assert "not shown" in explain("paraphrase").lower()
    with pytest.raises(UsageError):
        explain("no-such-code")


def test_every_finding_has_a_known_code_and_its_steps_number(simulation: Simulation) -> None:
    report = simulation.verify()
    for finding in [*report.findings, *report.notes]:
        assert finding.spec == str(CODES[finding.code].step)
