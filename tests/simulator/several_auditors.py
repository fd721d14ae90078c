"""Audits by several auditors for the simulated release, with or without inner digests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulated_release import Simulation, key

from pot.audit.challenges.challenge import NonceSource, new_challenge
from pot.audit.salted import InnerDigests, inner_step, new_inner_digests
from pot.canonical import derive, parse, sha256_hex
from pot.recording.checking.chain import check_chain
from pot.recording.precommit import BeaconRound, Precommit
from pot.recording.transcript import read_transcript

__all__ = ["AUDITORS", "coverage_of", "inner_digests", "policy_of", "result_of", "with_audits"]

AUDITORS = {"Argus": "auditor", "Bellerophon": "auditor-two", "Cassandra": "auditor-three"}
"""Name in the policy -> name of the signing key."""


def policy_of(policy: dict[str, Any], **changes: Any) -> None:
    """The policy with all auditors; `changes` replace its fields."""
    policy["roles"]["auditor"] = [
        {"name": name, "public_key": key(signer).public.pem().decode()} for name, signer in AUDITORS.items()
    ]
    policy.update(changes)


def result_of(
    run: dict[str, Any],
    nonce: str = "",
    *,
    forged: str = "0.5",
    detect: str = "0.5",
    source: NonceSource = "verifier",
    beacon: BeaconRound | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """An audit like `run`, an honest one of the simulation, with another draw; all drawn units match."""
    challenge = new_challenge(
        run["precommit_sha256"],
        run["transcript_sha256"],
        int(run["challenge"]["population"]),
        forged=forged,
        detect=detect,
        nonce=derive("test/several", nonce.encode()).hex() if source == "verifier" else None,
        nonce_source=source,
        beacon=beacon,
    )
    return {
        **run,
        "challenge": challenge.model_dump(mode="json", exclude_none=True),
        "replays": [{"unit_number": number, "outcome": "MATCH"} for number in challenge.chosen],
        **fields,
    }


def with_audits(simulation: Simulation, name: str, made: Any) -> Simulation:
    """Replace a model's audits by signed ones: `made(honest)` gives pairs of auditor and result."""
    add = simulation.add_audit
    signers: dict[int, str] = {}

    def bend(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        signers.clear()
        pairs = made(results[0])
        signers.update({id(result): AUDITORS[auditor] for auditor, result in pairs})
        return [result for _, result in pairs]

    def add_audit(result: dict[str, Any], signer: str = "auditor") -> str:
        return add(result, signers.get(id(result), signer))

    simulation.add_audit = add_audit  # type: ignore[method-assign]
    simulation.bend(f"{name}.audits", bend)
    return simulation.bend(f"{name}.predicate", lambda predicate: coverage_of(simulation, predicate))


def coverage_of(simulation: Simulation, predicate: dict[str, Any]) -> None:
    """State the coverage that the referenced audits give."""
    from attest.bundle import SigstoreBundle

    found: set[str] = set()
    for line in simulation.lines:
        payload = SigstoreBundle.from_line(line, what="line").dsse_envelope.payload_bytes()
        if sha256_hex(payload) not in predicate["audits"]:
            continue
        result = parse(payload, what="audit")["predicate"]
        if result.get("challenge", {}).get("unit") == "segment":
            found |= {unit["unit_number"] for unit in result["replays"] if unit["outcome"] == "MATCH"}
    predicate["coverage"]["replayed"] = str(len(found))


def inner_digests(
    simulation: Simulation, result: dict[str, Any], secret: str = "weights", leave_out: Sequence[int] = ()
) -> InnerDigests:
    """What an auditor keeps who replayed the audit's segments: invented digests of the states inside them."""
    precommit = Precommit.from_bytes(simulation.objects[result["precommit_sha256"]], what="pre-commitment")
    chain = check_chain(read_transcript(simulation.objects[result["transcript_sha256"]]), precommit)
    numbers = {int(unit["unit_number"]) for unit in result["replays"]} - set(leave_out)
    steps = [inner_step(result["transcript_sha256"], segment) for segment in chain.segments if segment.index in numbers]
    states = {
        step: {"model": derive("test/inner", secret.encode(), step.to_bytes(8, "little")).hex()}
        for step in steps
        if step is not None
    }
    return new_inner_digests(result["transcript_sha256"], result["challenge"]["nonce"], states)
