"""The examples in the specifications of certificate and verification are real, and their tables are the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

from attest.bundle import SigstoreBundle
from attest.predicate import AUDIT, DATA_AUDIT
from attest.statement import Statement, certificate_of
from attest.trust.keys import PublicKey
from attest.verdict.codes import CODES, NOT_SHOWN, STEPS
from attest.verdict.policy import read_policy
from attest.verdict.report import EXIT_CODES
from attest.verdict.sentences import EXCLUSIONS, INCLUSIONS
from pot.audit.audit import AuditResult
from pot.audit.data_audit import DataAudit
from pot.canonical import canonical_bytes, sha256_hex
from pot.commitments.model import model_digest, names_digest

SPECS = Path(__file__).parents[2] / "specs"


def block(text: str, name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```[a-z]*\n(.*?)\n```", text, re.DOTALL)
    assert found is not None, name
    return found[1]


def test_the_certificate_of_the_example_is_what_the_document_says() -> None:
    text = (SPECS / "certificate.md").read_text()
    envelope = SigstoreBundle.from_line(block(text, "line").encode(), what="line").dsse_envelope
    PublicKey.from_pem(block(text, "key").encode()).verify(envelope.signature_bytes(), envelope.signed_bytes())
    payload = envelope.payload_bytes()
    assert canonical_bytes(json.loads(block(text, "payload"))) == payload
    assert sha256_hex(payload) == block(text, "name")
    statement = Statement.from_payload(payload, what="payload")
    certificate = certificate_of(statement, what="payload")
    assert model_digest(certificate.model.files) == statement.subject_sha256
    assert names_digest(certificate.model.files) == certificate.model.names_blake3


def test_the_audit_of_the_example_is_one() -> None:
    payload = json.loads(block((SPECS / "predicates/audit-v0.1.md").read_text(), "payload"))
    statement = Statement.from_payload(canonical_bytes(payload), what="payload")
    assert statement.predicate_type == AUDIT
    result = AuditResult.from_value(statement.predicate, what="audit")
    assert result.transcript_sha256 == statement.subject_sha256


def test_the_data_audit_of_the_example_is_one() -> None:
    text = (SPECS / "predicates/data-audit-v0.1.md").read_text()
    statement = Statement.from_payload(canonical_bytes(json.loads(block(text, "payload"))), what="payload")
    assert statement.predicate_type == DATA_AUDIT
    assert statement.subject[0].name == "dataset-commitment"
    result = DataAudit.from_value(statement.predicate, what="data audit")
    assert result.commitment_sha256 == statement.subject_sha256
    for field in DataAudit.model_fields:
        assert f"| `{field}` |" in text, field


def test_the_sentences_of_the_verification_document_are_those_of_the_reports() -> None:
    section = (SPECS / "verification.md").read_text().split("## Sentences")[1].split("## Procedure")[0]
    rows = re.findall(r"^\| `([a-z0-9/-]+)` \| (.*?) \| (.*) \|$", section, re.MULTILINE)
    assert [(view, shown) for view, shown, _ in rows] == list(EXCLUSIONS.items())
    assert {view: shown for view, _, shown in rows if not shown.startswith("none")} == INCLUSIONS


def test_every_field_of_the_certificate_is_documented() -> None:
    from attest.predicate import TrainingCertificate

    text = (SPECS / "predicates/training-certificate-v0.1.md").read_text()
    for field, info in TrainingCertificate.model_fields.items():
        assert f"`{info.alias or field}" in text, field


def test_the_tables_of_the_verification_document_are_the_codes() -> None:
    text = (SPECS / "verification.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (INCOMPLETE|lowers the level) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [
        (code.name, str(code.step), "INCOMPLETE" if code.blocks else "lowers the level", code.meaning)
        for code in CODES.values()
    ]
    section = text.split("## Not shown")[1]
    assert dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", section, re.MULTILINE)) == NOT_SHOWN
    assert {
        int(number): title for number, title in re.findall(r"^(\d+)\. \*\*(.*?)\.\*\*", text, re.MULTILINE)
    } == STEPS
    for verdict, code in EXIT_CODES.items():
        assert f"| {code} | {verdict} |" in text


def test_the_code_has_the_same_fifteen_numbers() -> None:
    source = (SPECS.parent / "attest/verdict/verify.py").read_text()
    assert [int(n) for n in re.findall(r"^    (\d+) +\S", source.split('"""')[1], re.MULTILINE)] == list(STEPS)


def test_the_policy_of_the_document_can_be_used() -> None:
    text = (SPECS / "verification.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    assert len(read_policy(example[1].encode()).document.require) == 2
