"""Statements: canonical, one subject, caps, one form of each predicate."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_release import Simulation

from attest.bundle import SigstoreBundle
from attest.predicate import AUTHORITY, NON_CLAIMS, TRAINING_CERTIFICATE, Model
from attest.statement import MAX_STATEMENT_BYTES, Statement, certificate_of, make_statement
from attest.verdict.codes import NOT_SHOWN
from pot.canonical import canonical_bytes, parse
from pot.errors import LimitExceeded, Malformed


@pytest.fixture(scope="module")
def payload() -> bytes:
    return SigstoreBundle.from_line(Simulation().release().lines[-1], what="line").dsse_envelope.payload_bytes()


def test_reading_gives_the_bytes_back(payload: bytes) -> None:
    statement = Statement.from_payload(payload, what="payload")
    assert statement.to_bytes() == payload
    assert statement.predicate_type == TRAINING_CERTIFICATE == AUTHORITY + "training-certificate/v0.1"
    certificate = certificate_of(statement, what="payload")
    assert certificate.to_bytes() == canonical_bytes(parse(payload, what="payload")["predicate"])
    assert make_statement("child", statement.subject_sha256, TRAINING_CERTIFICATE, certificate).to_bytes() == payload


def test_the_python_name_of_an_alias_is_no_second_spelling(payload: bytes) -> None:
    value = parse(payload, what="payload")
    value["predicate"]["non_claims"] = value["predicate"].pop("nonClaims")
    statement = Statement.from_payload(canonical_bytes(value), what="payload")
    with pytest.raises(Malformed, match="only form"):
        certificate_of(statement, what="payload")
    value = parse(payload, what="payload")
    value["predicate_type"] = value.pop("predicateType")
    with pytest.raises(Malformed):
        Statement.from_payload(canonical_bytes(value), what="payload")


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "a\x1b[2J", "\u202egnp", "a\u200bb", "é", "x" * 257])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(Malformed):
        Model.from_value({"name": name, "names_blake3": "0" * 64, "files": []}, what="model")


def test_digests_are_sha256_in_lowercase_hex(payload: bytes) -> None:
    for bad in ("A" * 64, "0" * 63, "0" * 64 + "\n", "sha256:" + "0" * 57):
        value: Any = parse(payload, what="payload")
        value["subject"][0]["digest"]["sha256"] = bad
        with pytest.raises(Malformed):
            Statement.from_payload(canonical_bytes(value), what="payload")


def test_statements_stay_small(payload: bytes) -> None:
    value: Any = parse(payload, what="payload")
    value["predicate"]["model"]["files"] *= 1000
    with pytest.raises(LimitExceeded):
        Statement.from_payload(canonical_bytes(value), what="payload")
    certificate = certificate_of(Statement.from_payload(payload, what="payload"), what="payload")
    big = certificate.model_copy(update={"audits": ["0" * 64] * 2000})
    with pytest.raises(LimitExceeded, match=str(MAX_STATEMENT_BYTES)):
        make_statement("child", "0" * 64, TRAINING_CERTIFICATE, big)


def test_every_non_claim_has_its_sentence() -> None:
    assert set(NON_CLAIMS) <= set(NOT_SHOWN)
