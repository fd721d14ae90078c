"""A46: a challenge drawn from a beacon round that the prover picked: an old one, the best of many, of its own chain."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from private_beacon import PrivateBeacon
from several_auditors import policy_of, result_of, with_audits
from simulated_release import Simulation, failed, unchecked

from attest.verdict.report import Report
from pot.audit.challenges.beacon import BeaconRound
from pot.audit.challenges.challenge import Challenge, check_challenge, choose, detection, new_challenge
from pot.errors import Malformed, Refused

BEACON, OWN = PrivateBeacon(), PrivateBeacon(secret=99, beacon_id="of-the-prover")
FIRST = 1000
INFINITY = "c0" + "00" * 47


def pinned(policy: dict[str, Any], first: int = FIRST, beacon: PrivateBeacon = BEACON) -> None:
    """The verifier had the transcript's digest before round `first`."""
    info = beacon.info.model_dump(mode="json")
    pin = {"chain": beacon.info.chain_hash(), "not_before_round": first, "info": info}
    policy_of(policy, challenge={"beacon": pin})


def judged(beacon: BeaconRound, policy: Callable[[dict[str, Any]], None] = pinned, **sizes: str) -> Report:
    """The parent's only audit was drawn by this round."""

    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return [("Argus", result_of(run, source="beacon", beacon=beacon, **{"detect": "0.8", **sizes}))]

    return with_audits(Simulation().bend("policy", policy), "parent", made).verify()


def coverage(report: Report) -> str:
    return " ".join(f.detail for f in report.findings if f.code == "replay-coverage" and "parent" in f.subject)


def test_the_first_round_that_the_verifier_names_counts_like_its_own_nonce() -> None:
    report = judged(BEACON.sign(FIRST))
    assert report.verdict == "PASS"
    assert "drawn by a beacon's round" in str(report.findings)


def test_a_round_from_before_the_verifier_had_the_transcript() -> None:
    report = judged(BEACON.sign(FIRST - 1))
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert "round 999 is before 1000" in coverage(report)
    # without the bound the same challenge passes
    assert judged(BEACON.sign(FIRST - 1), lambda policy: pinned(policy, FIRST - 1)).verdict == "PASS"


def test_waiting_for_the_round_whose_draw_avoids_the_bad_segment() -> None:
    """Every challenge is honest by itself, and the bad segment is in none: with 2 of 4 drawn, one round in two does."""
    bad = "3"

    def avoids(number: int) -> bool:
        return bad not in choose("cd" * 32, "segment", BEACON.sign(number).randomness, 4, 2)

    suits = next(number for number in range(FIRST, FIRST + 100) if avoids(number))
    assert suits < FIRST + 10  # a prover need not wait long
    assert detection(4, 1, 2) == 0.5
    report = judged(BEACON.sign(FIRST + 9))
    assert report.verdict == "INCOMPLETE"
    assert "the best of 10 draws: 2 forged ones are caught with 16.15 %, the policy asks for 80.00 %" in coverage(
        report
    )
    # counted as a single draw it would have been enough
    assert judged(BEACON.sign(FIRST + 9), lambda policy: pinned(policy, FIRST + 9)).verdict == "PASS"


def test_a_larger_draw_may_wait() -> None:
    """Three of four segments meet two forged ones for certain, whatever the round."""
    assert judged(BEACON.sign(FIRST + 9), detect="1").verdict == "PASS"


def test_a_chain_of_the_provers_own() -> None:
    report = judged(OWN.sign(FIRST))
    assert report.verdict == "INCOMPLETE"
    assert "the policy does not name the beacon that drew it" in coverage(report)
    # relabelled as the verifier's chain
    forged = OWN.sign(FIRST).model_copy(update={"chain": BEACON.info.chain_hash()})
    assert "challenge" in failed(judged(forged))


def test_a_description_of_the_chain_with_another_key() -> None:
    """The name is the hash of the description, so another key is another chain."""

    def bent(policy: dict[str, Any]) -> None:
        pinned(policy)
        policy["challenge"]["beacon"]["info"]["public_key"] = OWN.info.public_key

    with pytest.raises(Malformed, match="is not that of info"):
        judged(OWN.sign(FIRST), bent)


@pytest.mark.parametrize("signature", [INFINITY, BEACON.sign(FIRST, signed=FIRST + 1).signature, "80" + "00" * 47])
def test_a_round_that_nobody_signed(signature: str) -> None:
    """Bytes ground until their SHA-256 draws what suits; infinity fits every message where it is let in."""
    forged = BeaconRound(chain=BEACON.info.chain_hash(), round=str(FIRST), signature=signature)
    report = judged(forged)
    assert report.verdict == "DENY"
    assert "challenge" in failed(report)


def test_without_a_beacon_in_the_policy_it_covers_nothing() -> None:
    report = judged(BEACON.sign(FIRST), policy_of)
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert unchecked(report) == {"requirement"}


def test_without_the_extra_it_is_not_checked_and_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = BEACON.sign(FIRST)
    info = BEACON.info.model_dump(mode="json")
    monkeypatch.setitem(sys.modules, "py_arkworks_bls12381", None)

    def policy(value: dict[str, Any]) -> None:
        policy_of(value, challenge={"beacon": {"chain": drawn.chain, "not_before_round": "1", "info": info}})

    report = judged(drawn, policy)
    assert report.verdict == "INCOMPLETE"
    assert "challenge" in unchecked(report)
    assert "pip install 'pot-attest[beacon]'" in report.reason


# the document itself -------------------------------------------------------------------------------------------------

RUN, TRANSCRIPT = "aa" * 32, "bb" * 32


def bent_challenge(**fields: Any) -> Challenge:
    challenge = new_challenge(RUN, TRANSCRIPT, 10, nonce_source="beacon", beacon=BEACON.sign(5))
    return Challenge.from_value({**challenge.model_dump(mode="json"), **fields}, what="challenge")


def test_an_auditor_checks_the_round_before_it_works() -> None:
    check_challenge(bent_challenge(), RUN, TRANSCRIPT, 10, 100, chain=BEACON.info)
    with pytest.raises(Refused, match="is not one that was given here"):
        check_challenge(bent_challenge(), RUN, TRANSCRIPT, 10, 100)
    forged = new_challenge(RUN, TRANSCRIPT, 10, nonce_source="beacon", beacon=BEACON.sign(5, signed=6))
    with pytest.raises(Refused, match="not that of the chain"):
        check_challenge(forged, RUN, TRANSCRIPT, 10, 100, chain=BEACON.info)


@pytest.mark.parametrize(
    "fields",
    [
        {"nonce": "00" * 32},
        {"beacon": None},
        {"nonce_source": "verifier"},
        {"nonce_source": "prover"},
        {"beacon": BEACON.sign(6).model_dump(mode="json")},
    ],
)
def test_a_nonce_that_is_not_the_rounds_randomness(fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        bent_challenge(**fields)
