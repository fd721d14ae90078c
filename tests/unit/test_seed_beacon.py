"""Verdicts on seeds from a beacon's round: recomputed, `committed` and never more; what is no such seed is false."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from private_beacon import PrivateBeacon
from several_auditors import policy_of
from simulated_release import Simulation, failed, judge, unchecked

from attest.verdict.report import Report
from attest.verdict.verify import verify
from pot.audit.challenges.beacon import BeaconRound
from pot.canonical import sha256_hex

BEACON = PrivateBeacon()
ROUNDS = {"parent": BEACON.sign(500), "child": BEACON.sign(600)}


def pinned(policy: dict[str, Any]) -> None:
    pin = {"chain": BEACON.info.chain_hash(), "not_before_round": 1, "info": BEACON.info.model_dump(mode="json")}
    policy_of(policy, challenge={"beacon": pin})


def world(
    rounds: dict[str, BeaconRound] | None = None,
    policy: Callable[[dict[str, Any]], None] = pinned,
    signatures: dict[str, bytes] | None = None,
) -> Simulation:
    """Both runs' nonces are the randomness of rounds; the signatures are objects."""
    drawn = rounds if rounds is not None else ROUNDS
    bytes_of = {name: bytes.fromhex(item.signature) for name, item in drawn.items()} | (signatures or {})
    simulation = Simulation(seed_source="beacon", nonces={name: sha256_hex(data) for name, data in bytes_of.items()})
    for name, item in drawn.items():
        promised = {"chain": item.chain, "round": item.round}
        simulation.bend(f"{name}.precommit", lambda value, promised=promised: value.update(beacon=promised))
    simulation.bend("objects", lambda objects: objects.update({sha256_hex(data): data for data in bytes_of.values()}))
    return simulation.bend("policy", policy)


def level(report: Report, claim: str) -> set[str]:
    return {item.level for item in report.claims if item.type == claim}


def test_a_beacons_seed_is_committed_and_never_audited() -> None:
    report = world().verify()
    assert report.verdict == "PASS"
    assert level(report, "training-provenance") == {"committed"}
    assert level(report, "dataset-exclusion") == {"audited"}
    passed = [f for f in report.findings if f.code == "seed-beacon" and f.status == "passed"]
    assert [f.detail for f in passed] == [
        "the nonce is its randomness; it was due at second 1600017970 (Unix time)",
        "the nonce is its randomness; it was due at second 1600014970 (Unix time)",
    ]
    seeds = [f for f in report.findings if f.code == "seed"]
    assert {f.status for f in seeds} == {"not_checked"}
    assert all("a log would show, and none is consulted" in f.detail for f in seeds)
    assert "seed-beacon-time" in {item.code for item in report.not_shown}


def test_a_policy_that_wants_provenance_audited_is_not_met() -> None:
    def audited(policy: dict[str, Any]) -> None:
        pinned(policy)
        policy["require"][0]["level"] = "audited"

    report = world(policy=audited).verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (bytes.fromhex(BEACON.sign(500, signed=501).signature), "not that of the chain"),
        (b"\xc0" + bytes(47), "point at infinity"),
        (b"a nonce that the trainer liked better", "no signature"),
    ],
)
def test_a_nonce_that_is_not_the_rounds_randomness_is_denied(signature: bytes, words: str) -> None:
    """A46, A07: bytes tried until the seed suits, called a beacon's."""
    report = world(signatures={"parent": signature}).verify()
    assert report.verdict == "DENY"
    assert "seed-beacon" in failed(report)
    assert words in report.reason


def test_taking_the_signature_away_makes_nothing_better() -> None:
    for simulation in (world(), world(signatures={"parent": b"no signature"})):
        release, policy = simulation.release(), simulation.policy()
        for nonce in simulation.nonces.values():
            objects = {name: data for name, data in release.objects.items() if name != nonce}
            report = verify(replace(release, objects=objects), policy, step_verifier=judge)
            assert report.verdict != "PASS"
            assert "seed-beacon" in unchecked(report)


def test_a_chain_that_the_verifier_does_not_know() -> None:
    report = world(policy=lambda policy: policy_of(policy)).verify()
    assert report.verdict == "INCOMPLETE"
    assert "neither quicknet nor the policy's" in report.reason


def test_without_the_extra_the_reason_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = world()
    release, policy = simulation.release(), simulation.policy()
    monkeypatch.setitem(sys.modules, "py_arkworks_bls12381", None)
    report = verify(release, policy, step_verifier=judge)
    assert report.verdict == "INCOMPLETE"
    assert "pip install 'pot-attest[beacon]'" in report.reason


def test_a_seed_called_a_verifiers_in_the_transcript_is_denied() -> None:
    report = world().bend("parent.events", lambda events: events[0].update(nonce_source="self")).verify()
    assert report.verdict == "DENY"
    assert "precommit" in failed(report)
