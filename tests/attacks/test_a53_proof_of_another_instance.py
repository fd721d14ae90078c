"""A53, the evidence: a valid step proof of another step, run or batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulated_release import Simulation, failed, point, sha256_hex, unchecked

from pot.audit.challenges.challenge import new_challenge
from pot.canonical import canonical_bytes, parse

Change = Callable[[dict[str, Any]], None]


def with_proof(change: Change) -> Simulation:
    """The first listed step proof, changed by its prover."""
    simulation = Simulation()

    def apply(predicate: dict[str, Any]) -> None:
        item = next(claim for claim in predicate["claims"] if claim["type"] == "steps-proven")["steps"][0]
        proof = parse(simulation.objects[item["proof_sha256"]], what="step proof")
        change(proof)
        item["proof_sha256"] = simulation.put(canonical_bytes(proof))

    return simulation.bend("child.predicate", apply)


def other_run(proof: dict[str, Any]) -> None:
    proof["precommit_sha256"] = sha256_hex(b"another run")


def other_step(proof: dict[str, Any]) -> None:
    proof["step"] = str(int(proof["step"]) + 1)


def other_circuit(proof: dict[str, Any]) -> None:
    proof["circuit_sha256"] = sha256_hex(b"another circuit")


def other_batch_named(proof: dict[str, Any]) -> None:
    proof["points"]["batch"] = point("another batch")


def other_batch_inside(proof: dict[str, Any]) -> None:
    """The document names the right points; the bytes of the proof hold others."""
    body, at = proof["proofs"][0], 2 * 128  # before, after, batch
    proof["proofs"] = [body[:at] + point("another batch") + body[at + 128 :]]


def other_constants(proof: dict[str, Any]) -> None:
    body, at = proof["proofs"][0], 4 * 128
    proof["proofs"] = [body[:at] + point("another learning rate") + body[at + 128 :]]


def too_short(proof: dict[str, Any]) -> None:
    proof["proofs"] = [proof["proofs"][0][:300]]


def too_long(proof: dict[str, Any]) -> None:
    proof["proofs"] = [proof["proofs"][0] + b"honest".hex()]


def a_part_more(proof: dict[str, Any]) -> None:
    proof["proofs"] *= 2


def does_not_verify(proof: dict[str, Any]) -> None:
    proof["proofs"] = [proof["proofs"][0][:-12] + "00" * 6]


@pytest.mark.parametrize("change", [other_run, other_step, other_circuit, other_batch_named])
def test_it_is_denied_by_its_points(change: Change) -> None:
    report = with_proof(change).verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"step-points"}


@pytest.mark.parametrize(
    "change", [other_batch_inside, other_constants, too_short, too_long, a_part_more, does_not_verify]
)
def test_a_step_proof_whose_bytes_are_others_is_denied(change: Change) -> None:
    report = with_proof(change).verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"step-proof"}


def test_the_proof_of_another_step_sold_for_this_one_is_denied() -> None:
    def swap(predicate: dict[str, Any]) -> None:
        first, second = next(claim for claim in predicate["claims"] if claim["type"] == "steps-proven")["steps"][:2]
        first["proof_sha256"], second["proof_sha256"] = second["proof_sha256"], first["proof_sha256"]

    report = Simulation().bend("child.predicate", swap).verify()
    assert report.verdict == "DENY"
    assert "step-points" in failed(report)


def test_points_that_do_not_join_are_denied() -> None:
    def cut(events: list[dict[str, Any]]) -> None:
        steps = [event for event in events if event["type"] == "step"]
        steps[2]["points"]["before"] = point("elsewhere")

    report = Simulation().bend("child.events", cut).verify()
    assert report.verdict == "DENY"
    assert "chain" in failed(report)


def test_points_of_nothing_are_not_tied() -> None:
    """The points chain and the proofs hold, but nobody says that they commit to the released weights."""

    def unchecked_points(results: list[dict[str, Any]]) -> None:
        for result in results:
            result["points"] = "NOT_CHECKED"

    report = Simulation().bend("child.audits", unchecked_points).verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}
    assert "points-not-tied" in {item.code for item in report.not_shown}

    report = Simulation().bend("child.audits", lambda results: results[0].update(points="MISMATCH")).verify()
    assert report.verdict == "DENY"
    assert "points-tie" in failed(report)


@pytest.mark.parametrize("looked_suspicious", [False, True])
def test_points_of_other_segments_do_not_tie_a_proven_step(looked_suspicious: bool) -> None:
    """The proven segment's points are of a fake run: one auditor computed points, but of another segment; the other
    replayed the proven steps, on a machine that cannot compute points. This passed before segments were compared, and
    again where the first auditor had replayed the proven segment too, as a suspicious one whose points nobody made."""

    def elsewhere(results: list[dict[str, Any]]) -> None:
        segments, steps = results
        proven = {str((int(number) + 1) // 2) for number in steps["challenge"]["chosen"]}
        run = (segments["precommit_sha256"], segments["transcript_sha256"])
        draws = (new_challenge(*run, 3, forged="1", detect="0.1", nonce=f"{nonce:064x}") for nonce in range(100))
        challenge = next(draw for draw in draws if not proven & set(draw.chosen))
        segments["challenge"] = challenge.model_dump(mode="json", exclude_none=True)
        segments["replays"] = [{"unit_number": number, "outcome": "MATCH"} for number in challenge.chosen]
        if looked_suspicious:
            segments["extra"] = [{"unit_number": number, "outcome": "MATCH"} for number in sorted(proven)]
        steps["points"] = "NOT_CHECKED"

    def only_steps(policy: dict[str, Any]) -> None:
        policy["require"] = [item for item in policy["require"] if item["claim"] == "steps-proven"]

    simulation = Simulation().bend("policy", only_steps)
    assert simulation.verify().verdict == "PASS"
    simulation = Simulation().bend("policy", only_steps).bend("child.audits", elsewhere)
    report = simulation.bend("child.predicate", lambda value: value["coverage"].update(replayed="1")).verify()
    assert failed(report) == set()
    assert report.verdict == "INCOMPLETE"
    assert "points-not-tied" in {item.code for item in report.not_shown}


def test_points_of_as_many_units_as_the_policy_asks_for_tie_the_run() -> None:
    """The proven steps' own segment was not drawn, but the draw is large enough to have met a fake elsewhere."""

    def others(results: list[dict[str, Any]]) -> None:
        segments, steps = results
        proven = {str((int(number) + 1) // 2) for number in steps["challenge"]["chosen"]}
        run = (segments["precommit_sha256"], segments["transcript_sha256"])
        draws = (new_challenge(*run, 3, forged="0.5", detect="0.8", nonce=f"{nonce:064x}") for nonce in range(100))
        challenge = next(draw for draw in draws if not proven & set(draw.chosen))
        segments["challenge"] = challenge.model_dump(mode="json", exclude_none=True)
        segments["replays"] = [{"unit_number": number, "outcome": "MATCH"} for number in challenge.chosen]
        steps["points"] = "NOT_CHECKED"

    report = Simulation().bend("child.audits", others).verify()
    assert report.verdict == "PASS"
    tie = next(finding for finding in report.findings if finding.code == "points-tie")
    assert "as many units as the policy asks for" in tie.detail


def test_a_removed_step_proof_is_incomplete() -> None:
    simulation = Simulation()

    def remove(objects: dict[str, bytes]) -> None:
        name = next(name for name, data in objects.items() if b"pot/step-proof/v2" in data)
        del objects[name]

    report = simulation.bend("objects", remove).verify()
    assert report.verdict == "INCOMPLETE"
    assert "step-proof" in unchecked(report)


def test_steps_of_the_provers_choice_do_not_meet_a_policy_that_asks_for_a_draw() -> None:
    simulation = Simulation()

    def other(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "steps-proven")
        del claim["steps"][0]
        predicate["coverage"]["proved"] = "1"

    report = simulation.bend("child.predicate", other).verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}
