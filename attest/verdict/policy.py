"""The policy: whom a verifier believes, in which role, and what must be shown at which level.

Spec: `specs/verification.md`, "Policy file" (version `pot/policy/v1`). A policy comes from the verifier and never from
the release bundle. It pins exclusion sets by view, count and root, circuits and reference strings by digest.

Does not define: how a level is reached (`specs/verification.md`, "Levels").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from attest.predicate import Name
from attest.trust.keys import PublicKey, SignatureRefused
from attest.verdict.findings import Level, rank
from attest.verdict.report import ClaimType
from attest.verdict.rules import (
    AuditRules,
    BeaconPin,
    ChallengeRules,
    CoverageTarget,
    Limits,
    Quantity,
    SrsClass,
    ZkPins,
)
from attest.verdict.yaml_subset import MAX_YAML_BYTES, parse_yaml
from pot.audit.challenges.beacon import QUICKNET, ChainInfo
from pot.canonical import Document, Hex32, read_file
from pot.commitments.hiding import Hiding
from pot.errors import Malformed

__all__ = [
    "POLICY_VERSION",
    "ExclusionPin",
    "Identity",
    "InclusionPin",
    "Policy",
    "PolicyDocument",
    "Requirement",
    "Role",
    "load_policy",
    "pin_words",
    "read_policy",
]

POLICY_VERSION: Final = "pot/policy/v1"
Role = Literal["developer", "auditor"]


class Identity(Document):
    """A name and the public key that speaks for it."""

    name: Name
    public_key: Annotated[str, StringConstraints(max_length=2048)]


class Roles(Document):
    """Who may say what. Developers sign certificates, auditors sign audits."""

    developer: Annotated[list[Identity], Field(min_length=1, max_length=64)]
    auditor: Annotated[list[Identity], Field(max_length=64)] = Field(default_factory=list)


class ExclusionPin(Document):
    """The exclusion set that is meant: by view, number of records and root of its ordered tree.

    `field`: accept training data in which what the view sees is called so; without it, only the view's own name.
    `hiding`: the root was made under this key (`method`, `id`); without it, under none.
    """

    view: Annotated[str, StringConstraints(max_length=64)]
    records: Quantity
    root_blake3: Hex32
    field: Annotated[str, StringConstraints(min_length=1, max_length=600)] | None = None
    hiding: Hiding | None = None


class InclusionPin(ExclusionPin):
    """The inclusion set that is meant, named in the same way."""


Labels = Annotated[list[Annotated[str, StringConstraints(max_length=1024)]], Field(min_length=1, max_length=1024)]


class Requirement(Document):
    """One claim that must hold, at this level or above. `verifier_chosen`: the proven steps hold a verifier's draw.

    `every_step`: the claim is about all steps of the run. `only`: every group of the compositions has one of these
    labels; data-composition is required of every dataset.
    """

    claim: ClaimType
    level: Level
    exclusion: ExclusionPin | None = None
    inclusion: InclusionPin | None = None
    only: Annotated[dict[str, Labels], Field(min_length=1, max_length=8)] | None = None
    every_step: bool | None = None
    verifier_chosen: bool | None = None

    @model_validator(mode="after")
    def _complete(self) -> Requirement:
        if (self.claim in ("dataset-exclusion", "step-exclusion")) != (self.exclusion is not None):
            raise ValueError("a claim of exclusion needs `exclusion` (view, records, root_blake3), others have none")
        if (self.claim == "dataset-inclusion") != (self.inclusion is not None):
            raise ValueError("dataset-inclusion needs `inclusion` (view, records, root_blake3), other claims have none")
        if self.only is not None and self.claim != "data-composition":
            raise ValueError("only belongs to data-composition only")
        if self.verifier_chosen is not None and self.claim != "steps-proven":
            raise ValueError("verifier_chosen belongs to steps-proven only")
        if self.every_step is not None and self.claim not in ("steps-proven", "step-exclusion"):
            raise ValueError("every_step belongs to steps-proven and step-exclusion only")
        return self

    @property
    def needs_coverage(self) -> bool:
        """Whether auditors may carry it, so that the policy must say how much. Every step proven leaves none open."""
        return rank(self.level) >= rank("audited") and not (self.every_step and self.level == "proved")


class PolicyDocument(Document):
    """The fields of a policy file."""

    version: Literal["pot/policy/v1"]
    roles: Roles
    require: Annotated[list[Requirement], Field(min_length=1, max_length=64)]
    limits: Limits | None = None
    coverage: CoverageTarget | None = None
    challenge: ChallengeRules | None = None
    audit: AuditRules | None = None
    zk: ZkPins | None = None

    @model_validator(mode="after")
    def _decidable(self) -> PolicyDocument:
        if self.coverage is None and any(item.needs_coverage for item in self.require):
            raise ValueError("a policy that requires `audited` must say how much: coverage {forged, detect}")
        if self.audit is not None and int(self.audit.auditors or "1") > len(self.roles.auditor):
            raise ValueError("audit.auditors asks for more auditors than roles.auditor names")
        if self.audit is not None and self.audit.independent and len(self.roles.auditor) < 2:
            raise ValueError("audit.independent needs at least two identities in roles.auditor")
        names = [identity.name for identity in (*self.roles.developer, *self.roles.auditor)]
        if len(set(names)) != len(names):
            raise ValueError("roles: two identities have the same name")
        return self


@dataclass(frozen=True)
class Policy:
    """A policy ready for use: the document and the keys it names."""

    document: PolicyDocument
    keys: tuple[tuple[Role, str, PublicKey], ...]
    sha256: str
    """SHA-256 of the policy file's bytes (of the document's canonical bytes where there is no file)."""

    @classmethod
    def of(cls, document: PolicyDocument, *, sha256: str | None = None, what: str = "policy") -> Policy:
        """Load the keys of a document. Raises `Malformed`."""
        keys: list[tuple[Role, str, PublicKey]] = []
        seen: dict[str, str] = {}
        roles: Iterable[tuple[Role, list[Identity]]] = (
            ("developer", document.roles.developer),
            ("auditor", document.roles.auditor),
        )
        for role, identities in roles:
            for identity in identities:
                pem = identity.public_key.encode("utf-8", "replace")
                key = PublicKey.from_pem(pem, what=f"{what}: roles.{role} {identity.name}")
                if key.hint() in seen:  # one holder in two roles would audit itself
                    raise Malformed(f"{what}: {identity.name} has the same key as {seen[key.hint()]}")
                seen[key.hint()] = identity.name
                keys.append((role, identity.name, key))
        return cls(document, tuple(keys), sha256 or document.sha256())

    def signer(self, signature: bytes, message: bytes) -> tuple[Role, str] | None:
        """Role and name of the identity whose key made this signature; None if it is nobody's."""
        for role, name, key in self.keys:
            try:
                key.verify(signature, message)
            except SignatureRefused:
                continue
            return role, name
        return None

    @property
    def segment_limit(self) -> int | None:
        """The longest accepted segment, in steps."""
        limits = self.document.limits
        return None if limits is None or limits.segment_steps is None else int(limits.segment_steps)

    @property
    def coverage(self) -> tuple[Fraction, Fraction] | None:
        """Share of forged units and the probability to catch them, exactly."""
        target = self.document.coverage
        return None if target is None else (Fraction(target.forged), Fraction(target.detect))

    @property
    def beacon(self) -> BeaconPin | None:
        """The beacon that may draw challenges."""
        return self.document.challenge.beacon if self.document.challenge else None

    @property
    def beacon_chain(self) -> ChainInfo | None:
        """The description of that beacon's chain."""
        return None if self.beacon is None else self.beacon.info or QUICKNET

    @property
    def auditors(self) -> int:
        """How many different auditors must carry the coverage."""
        return int((self.document.audit.auditors if self.document.audit else None) or "1")

    @property
    def independent(self) -> bool:
        """Whether two auditors must have shown that they computed the same inner states."""
        return bool(self.document.audit and self.document.audit.independent)

    @property
    def circuits(self) -> frozenset[str]:
        """Digests of the pinned circuits."""
        return frozenset(self.document.zk.circuits) if self.document.zk else frozenset()

    @property
    def srs(self) -> dict[str, SrsClass]:
        """Class of each pinned reference string."""
        return {item.sha256_: item.class_ for item in self.document.zk.srs} if self.document.zk else {}


def read_policy(data: bytes, *, what: str = "policy") -> Policy:
    """Read a policy file's bytes. Raises `Malformed`, `LimitExceeded`."""
    value = parse_yaml(data, what=what)
    if not isinstance(value, dict):
        raise Malformed(f"{what}: is no policy, which has version, roles and require; pot policy show NAME prints one")
    document = PolicyDocument.from_value(value, what=what)
    return Policy.of(document, sha256=hashlib.sha256(data).hexdigest(), what=what)


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises `UsageError`, `Malformed`, `LimitExceeded`, `EnvironmentFailure`."""
    return read_policy(read_file(path, limit=MAX_YAML_BYTES), what=str(path))


def pin_words(pin: ExclusionPin) -> str:
    """How a set that a policy names is called in reports."""
    words = f"{pin.records} records, view {pin.view}, root {pin.root_blake3[:16]}"
    words += f", field {pin.field}" if pin.field is not None else ""
    return words + (f", under key {pin.hiding.id[:16]}" if pin.hiding is not None else "")
