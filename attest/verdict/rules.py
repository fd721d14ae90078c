"""The parts of a policy that say how much evidence is enough, and what it may be made with.

Spec: `specs/verification.md`, "Policy file". Which claims and whom to believe: `attest.verdict.policy`.

Does not define: how the evidence is weighed (`attest.verdict.coverage`, `attest.verdict.independence`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from pot.audit.challenges.beacon import QUICKNET, ChainInfo
from pot.canonical import Count, Document, Hex32

__all__ = ["AuditRules", "BeaconChain", "BeaconPin", "ChallengeRules", "CoverageTarget", "Limits", "Quantity", "Share",
           "Srs", "SrsClass", "ZkPins"]  # fmt: skip

SrsClass = Literal["public-ceremony", "verifier", "insecure-local"]


def _quantity(value: Any) -> Any:
    """People write `records: 200`; documents carry quantities as strings."""
    return str(value) if type(value) is int else value


Quantity = Annotated[Count, BeforeValidator(_quantity)]
Share = Annotated[
    str,
    StringConstraints(pattern=r"\A(0|[1-9][0-9]{0,5})(\.[0-9]{1,30})?(e-[1-9][0-9]?)?\z"),
    BeforeValidator(_quantity),
]
"""A number between 0 and 1, kept as text so that it stays exact."""


class Limits(Document):
    """Limits on the run. `segment_steps`: the longest segment that is accepted."""

    segment_steps: Quantity | None = None


class CoverageTarget(Document):
    """A challenge must catch a run with this share of forged steps with at least this probability."""

    forged: Share
    detect: Share

    @model_validator(mode="after")
    def _shares(self) -> CoverageTarget:
        if not 0 < Fraction(self.forged) <= 1 or not 0 <= Fraction(self.detect) <= 1:
            raise ValueError("forged must be above 0 and at most 1, detect between 0 and 1")
        return self


class BeaconChain(ChainInfo):
    """A drand chain other than quicknet, as a verifier describes it: drand's `info`; its hash is recomputed."""

    genesis_time: Quantity
    period: Quantity


class BeaconPin(Document):
    """The beacon whose rounds may draw challenges, and the first round that may: the verifier's next one when it had
    the transcript's digest. Every later round that is used instead counts as one more try of the prover.
    """

    chain: Hex32
    not_before_round: Quantity
    info: BeaconChain | None = None

    @model_validator(mode="after")
    def _known(self) -> BeaconPin:
        known = self.info if self.info is not None else QUICKNET
        if self.chain != known.chain_hash():
            raise ValueError(f"chain {self.chain} is not that of info (without info, quicknet's {known.chain_hash()})")
        if int(self.not_before_round) < 1:
            raise ValueError("not_before_round counts from 1")
        return self


class ChallengeRules(Document):
    """What draws challenges beside an auditor's own nonce."""

    beacon: BeaconPin


class AuditRules(Document):
    """`auditors`: so many different ones must carry the coverage. `independent`: two of them must have shown, by inner
    digests that each committed to, that they computed the same states.
    """

    auditors: Quantity | None = None
    independent: bool | None = None

    @model_validator(mode="after")
    def _sensible(self) -> AuditRules:
        if self.auditors is not None and not 1 <= int(self.auditors) <= 64:
            raise ValueError("auditors must be 1 to 64")
        return self


class Srs(Document):
    """A structured reference string by digest. Only `public-ceremony` and `verifier` can reach `proved`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    sha256_: Hex32 = Field(alias="sha256")
    class_: SrsClass = Field(alias="class")


class ZkPins(Document):
    """What step proofs may be made with."""

    circuits: Annotated[list[Hex32], Field(max_length=256)] = Field(default_factory=list)
    srs: Annotated[list[Srs], Field(max_length=64)] = Field(default_factory=list)
