"""DSSE: a signature over the type and the bytes of a payload.

Spec: `specs/certificate.md`, "Envelope"; upstream https://github.com/secure-systems-lab/dsse (protocol.md, v1).
Exactly one signature, and no `keyid`: verifiers in the field refuse bundles that have one, and a key id from the signer
must never choose the key. n-of-m is n envelopes over the same payload.

Shows: the holder of a key signed exactly these bytes.
Does not show: who holds the key, or when it was signed.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, Protocol

from pydantic import ConfigDict, Field, StringConstraints

from attest.statement import MAX_STATEMENT_BYTES, PAYLOAD_TYPE
from pot.canonical import Document
from pot.errors import LimitExceeded, Malformed

__all__ = ["MAX_SIGNATURES", "Envelope", "Signature", "Signer", "pae", "sign_envelope"]

MAX_SIGNATURES: Final = 1
_MAX_BASE64: Final = (MAX_STATEMENT_BYTES + 2) // 3 * 4

Base64 = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9+/]+={0,2}\z")]


class Signer(Protocol):
    """What can sign: `attest.trust.keys.PrivateKey`, or a key held elsewhere."""

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`."""
        ...


class Signature(Document):
    """One signature, standard base64."""

    sig: Annotated[Base64, Field(max_length=1024)]


class Envelope(Document):
    """The DSSE envelope; field names are upstream's."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    payload: Base64
    payload_type: str = Field(alias="payloadType")
    signatures: Annotated[list[Signature], Field(min_length=1, max_length=MAX_SIGNATURES)]

    def payload_bytes(self) -> bytes:
        """The signed payload. Raises `Malformed`, `LimitExceeded`."""
        if len(self.payload) > _MAX_BASE64:
            raise LimitExceeded(f"envelope: payload longer than the limit of {MAX_STATEMENT_BYTES} bytes")
        if self.payload_type != PAYLOAD_TYPE:
            raise Malformed(f"envelope: payload type {self.payload_type[:100]!r}, expected {PAYLOAD_TYPE!r}")
        return _from_base64(self.payload, "payload")

    def signature_bytes(self) -> bytes:
        """The raw signature. Raises `Malformed`."""
        return _from_base64(self.signatures[0].sig, "signature")

    def signed_bytes(self) -> bytes:
        """What the signature is over. Raises `Malformed`."""
        return pae(self.payload_type, self.payload_bytes())


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: both parts with their lengths, so that none can grow into the other."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload: bytes, signer: Signer) -> Envelope:
    """Sign a statement's payload."""
    signature = signer.sign(pae(PAYLOAD_TYPE, payload))
    return Envelope(
        payload=base64.b64encode(payload).decode(),
        payload_type=PAYLOAD_TYPE,
        signatures=[Signature(sig=base64.b64encode(signature).decode())],
    )


def _from_base64(text: str, part: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"envelope: the {part} is not base64") from None
    if base64.b64encode(data).decode() != text:  # unused bits set: a second spelling of the same bytes
        raise Malformed(f"envelope: the {part} is not base64 in its only form")
    return data
