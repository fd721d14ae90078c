"""in-toto Statement v1: one subject, one predicate, in canonical bytes.

Spec: `specs/certificate.md`, "Statement"; upstream https://github.com/in-toto/attestation/tree/main/spec/v1.
We allow less than upstream does: exactly one subject with exactly one digest, sha256 (other algorithms are refused by
readers of in-toto in the wild), and a payload in RFC 8785 form, so that two readers cannot see two statements.

Does not define: who signed it (`attest.envelope`), or what the predicate means (`attest.predicate`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from attest.predicate import TRAINING_CERTIFICATE, Name, TrainingCertificate
from pot.canonical import Document, Hex32, canonical_bytes
from pot.errors import LimitExceeded, Malformed

__all__ = [
    "MAX_STATEMENT_BYTES",
    "PAYLOAD_TYPE",
    "STATEMENT_TYPE",
    "DigestSet",
    "Statement",
    "Subject",
    "certificate_of",
    "make_statement",
]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_STATEMENT_BYTES: Final = 64 << 10  # transparency logs keep at most 100 KiB; evidence goes by digest


TypeUri = Annotated[str, StringConstraints(pattern=r"\Ahttps://[!-~]{1,500}\z")]


class DigestSet(Document):
    """The digest of a subject. OpenSSF Model Signing root for models, plain SHA-256 for files."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    sha256_: Hex32 = Field(alias="sha256")


class Subject(Document):
    """What the statement is about."""

    name: Name
    digest: DigestSet


class Statement(Document):
    """One in-toto Statement v1. Field names are upstream's; `type_` is `_type`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[Subject], Field(min_length=1, max_length=1)]
    predicate_type: TypeUri = Field(alias="predicateType")
    predicate: dict[str, Any]

    def to_bytes(self) -> bytes:
        """The payload: canonical bytes, the predicate exactly as it is (also a null in a foreign predicate)."""
        return canonical_bytes(
            {
                "_type": self.type_,
                "subject": [{"name": s.name, "digest": {"sha256": s.digest.sha256_}} for s in self.subject],
                "predicateType": self.predicate_type,
                "predicate": self.predicate,
            }
        )

    @property
    def subject_sha256(self) -> str:
        """The digest of the one subject."""
        return self.subject[0].digest.sha256_

    @classmethod
    def from_payload(cls, payload: bytes, *, what: str) -> Statement:
        """Read the payload of an envelope. Raises `Malformed`, `LimitExceeded`."""
        return cls.from_bytes(payload, what=what, limit=MAX_STATEMENT_BYTES)


def make_statement(name: str, sha256: str, predicate_type: str, predicate: Document) -> Statement:
    """A statement about one subject. Raises `LimitExceeded` where it would be larger than any verifier reads."""
    statement = Statement.from_value(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": sha256}}],
            "predicateType": predicate_type,
            "predicate": predicate.model_dump(mode="json", by_alias=True, exclude_none=True),
        },
        what="statement",
    )
    size = len(statement.to_bytes())
    if size > MAX_STATEMENT_BYTES:
        raise LimitExceeded(f"statement about {name}: {size} bytes, more than the limit of {MAX_STATEMENT_BYTES}")
    return statement


def certificate_of(statement: Statement, *, what: str) -> TrainingCertificate:
    """The training certificate in a statement. Raises `Malformed` for another predicate or a second spelling of it."""
    if statement.predicate_type != TRAINING_CERTIFICATE:
        raise Malformed(f"{what}: predicate type {statement.predicate_type!r}, expected {TRAINING_CERTIFICATE!r}")
    certificate = TrainingCertificate.from_value(statement.predicate, what=what)
    if certificate.to_bytes() != canonical_bytes(statement.predicate):  # null fields, or the Python name of an alias
        raise Malformed(f"{what}: the predicate is not in its only form: leave absent fields out, use the spec's names")
    return certificate
