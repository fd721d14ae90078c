"""Step 8, the seed: who chose the nonce, and whether it is what the pre-commitment says.

Spec: `specs/verification.md`, step 8. A nonce that an accepted auditor gave after seeing the pre-commitment is worth
most. A beacon's nonce is recomputed: it is the SHA-256 of the round's signature, which is therefore an object under the
nonce's own name. Whether that round came after the pre-commitment only a log could say.

Shows: an accepted auditor gave the nonce, or it is the randomness of the pre-committed round of that beacon.
Does not show: that no seed was tried before, where the nonce is the trainer's own, or a round that was known already.
"""

from __future__ import annotations

from attest.verdict.case import Case
from attest.verdict.policy import Policy
from pot.audit.challenges.beacon import chain_known_as, verify_round
from pot.errors import MissingExtra, PotError
from pot.recording.precommit import BeaconRound, SeedBeacon
from pot.recording.transcript import StartEvent

__all__ = ["check_seed"]

_SIGNATURE_BYTES = 48


def check_seed(case: Case, policy: Policy | None) -> None:
    """Step 8: who chose the nonce. Writes `seed`, and `seed-beacon` for a beacon's. Runs after audits are known."""
    start = case.transcript.events[0] if case.transcript and case.transcript.events else None
    if case.precommit is None or not isinstance(start, StartEvent):
        case.ledger.not_checked("seed", "nonce", "there is no pre-commitment or no start event")
        return
    if case.precommit.beacon is not None:
        _check_beacon(case, policy, case.precommit.beacon, start.nonce)
    elif case.precommit.seed_source == "self":
        case.not_shown.add("seed-source-self")
        case.ledger.not_checked("seed", "nonce", "seed source self: the trainer chose the nonce alone")
    else:
        _check_given(case, start.nonce)


def _check_given(case: Case, nonce: str) -> None:
    """One other nonce for this pre-commitment is enough: who has two may train with both and show the better run."""
    run = case.certificate.run.precommit_sha256
    words = [(audit.auditor, audit.result.seed_nonce) for audit in case.audits if audit.auditor is not None]
    given = [(by, word.nonce) for by, word in words if word is not None and word.precommit_sha256 == run]
    for by, other in given:
        if other != nonce:
            case.ledger.failed("seed", "nonce", f"{by} gave another nonce", expected=other, found=nonce)
            return
    if given:
        case.ledger.passed("seed", "nonce", f"{given[0][0]} gave the nonce for this pre-commitment", level="audited")
        return
    case.not_shown.add("seed-source-self")
    case.ledger.not_checked("seed", "nonce", "seed source verifier, but no accepted auditor says that they gave it")


def _check_beacon(case: Case, policy: Policy | None, promised: SeedBeacon, nonce: str) -> None:
    """The signature hashes to the nonce and is the chain's for the pre-committed round: `committed`, never more."""
    case.not_shown.add("seed-beacon-time")
    subject = f"round {promised.round} of chain {promised.chain[:16]}"
    detail = "a beacon's nonce; that the pre-commitment is older than the round a log would show, and none is consulted"
    case.ledger.not_checked("seed", "nonce", detail)
    signature = case.object("seed-beacon", nonce, "the signature of the beacon's round, whose SHA-256 is the nonce")
    if signature is None:
        return
    known = chain_known_as(promised.chain, policy.beacon_chain if policy is not None else None)
    if known is None:
        why = "the chain is neither quicknet nor the policy's (challenge.beacon): its key is not known"
        case.ledger.not_checked("seed-beacon", subject, why)
        return
    if len(signature) != _SIGNATURE_BYTES:
        case.ledger.failed("seed-beacon", subject, f"the nonce is the SHA-256 of {len(signature)} bytes, no signature")
        return
    try:
        verify_round(BeaconRound(chain=promised.chain, round=promised.round, signature=signature.hex()), known)
    except MissingExtra as error:
        case.ledger.not_checked("seed-beacon", subject, str(error))
    except PotError as error:
        case.ledger.failed("seed-beacon", subject, str(error))
    else:
        due = known.round_time(int(promised.round))
        case.ledger.passed(
            "seed-beacon", subject, f"the nonce is its randomness; it was due at second {due} (Unix time)"
        )
