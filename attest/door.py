"""Who may ask at the door: signed queries, and the answerer's list of askers with their allowances.

Spec: `specs/hiding.md`, "Asking and being allowed to". A query travels in a DSSE envelope with one signature. The key
that checks it comes from the answerer's own list; the query names that key's digest, so that it is one asker's question
and nobody else's.

Shows: an asker of the list signed exactly this query. Does not show: that the asker owns what is asked about.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from attest.envelope import Signature, Signer, pae
from attest.trust.keys import PublicKey, SignatureRefused
from attest.verdict.yaml_subset import MAX_YAML_BYTES, parse_yaml
from pot.canonical import Document, parse_canonical, read_file
from pot.data.door_verify import MAX_QUERY_BYTES, DoorQuery
from pot.errors import Malformed, Refused

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "PAYLOAD_TYPE",
    "Asker",
    "AskersDocument",
    "QueryEnvelope",
    "load_askers",
    "open_query",
    "read_query",
    "sign_query",
]

PAYLOAD_TYPE: Final = "application/vnd.pot-attest.door-query+json"
MAX_ASKERS: Final = 1024
_MAX_BASE64: Final = (MAX_QUERY_BYTES + 2) // 3 * 4
MAX_ENVELOPE_BYTES: Final = _MAX_BASE64 + 4096

Base64 = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9+/]+={0,2}\z", max_length=_MAX_BASE64)]
Allowance = Annotated[
    str,
    StringConstraints(pattern=r"\A(0|[1-9][0-9]{0,15})\z"),
    BeforeValidator(lambda value: str(value) if type(value) is int else value),  # people write `digests: 500`
]


class QueryEnvelope(Document):
    """The DSSE envelope of a query; field names are upstream's."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    payload: Base64
    payload_type: Literal["application/vnd.pot-attest.door-query+json"] = Field(alias="payloadType")
    signatures: Annotated[list[Signature], Field(min_length=1, max_length=1)]


class AskerEntry(Document):
    """One asker of the list. `digests`: how many they may ask for, in all."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    public_key: Annotated[str, StringConstraints(max_length=2048)]
    digests: Allowance


class AskersDocument(Document):
    """Version "pot/door-askers/v1": who may ask, and how much."""

    version: Literal["pot/door-askers/v1"]
    askers: Annotated[list[AskerEntry], Field(max_length=MAX_ASKERS)]


@dataclass(frozen=True, slots=True)
class Asker:
    """An asker with a key that was read."""

    name: str
    key: PublicKey
    allowance: int


def sign_query(query: DoorQuery, signer: Signer) -> QueryEnvelope:
    """Put a query into an envelope and sign it."""
    payload = query.to_bytes()
    return QueryEnvelope(
        payload=base64.b64encode(payload).decode(),
        payload_type=PAYLOAD_TYPE,
        signatures=[Signature(sig=base64.b64encode(signer.sign(pae(PAYLOAD_TYPE, payload))).decode())],
    )


def load_askers(path: Path) -> list[Asker]:
    """Read a list of askers, YAML or JSON. Raises `Malformed` (also for a name or a key that stands there twice)."""
    document = AskersDocument.from_value(
        parse_yaml(read_file(path, limit=MAX_YAML_BYTES), what=str(path)), what=str(path)
    )
    askers = [
        Asker(
            entry.name, PublicKey.from_pem(entry.public_key.encode(), what=f"{path}: {entry.name}"), int(entry.digests)
        )
        for entry in document.askers
    ]
    for what, values in (("name", [asker.name for asker in askers]), ("key", [asker.key.hint() for asker in askers])):
        if len(set(values)) != len(values):
            raise Malformed(f"{path}: two askers have the same {what}; an allowance belongs to one name and one key")
    return askers


def open_query(data: bytes, askers: list[Asker], *, what: str = "query") -> tuple[DoorQuery, Asker]:
    """The query in an envelope and the asker of the list who signed it.

    Raises `Refused` where none did, `Malformed`, `LimitExceeded`.
    """
    envelope = _envelope(data, what)
    payload, signature = _decoded(envelope.payload, what), _decoded(envelope.signatures[0].sig, what)
    signed = pae(envelope.payload_type, payload)
    asker = next((asker for asker in askers if _signed_by(asker, signature, signed)), None)
    if asker is None:
        raise Refused(f"{what}: nobody on the list of askers signed it")
    query = _query(payload, what)  # only now: what nobody vouches for is not parsed
    if query.asker_sha256 != asker.key.hint():
        raise Refused(f"{what}: was made for another key than that of {asker.name}, who signed it")
    return query, asker


def read_query(data: bytes, *, what: str = "query") -> DoorQuery:
    """The query in an envelope, its signature unchecked: for the asker, who made it. Raises `Malformed`."""
    return _query(_decoded(_envelope(data, what).payload, what), what)


def _envelope(data: bytes, what: str) -> QueryEnvelope:
    return QueryEnvelope.from_value(parse_canonical(data, what=what, limit=MAX_ENVELOPE_BYTES), what=what)


def _query(payload: bytes, what: str) -> DoorQuery:
    return DoorQuery.from_bytes(payload, what=what, limit=MAX_QUERY_BYTES)


def _signed_by(asker: Asker, signature: bytes, signed: bytes) -> bool:
    try:
        asker.key.verify(signature, signed)
    except SignatureRefused:
        return False
    return True


def _decoded(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{what}: holds something that is not base64") from None
    if base64.b64encode(data).decode() != text:  # unused bits set: a second spelling of the same bytes
        raise Malformed(f"{what}: holds base64 that is not in its only form")
    return data
