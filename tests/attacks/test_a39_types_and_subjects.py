"""A39: another predicate type, empty or extra subjects, unknown fields."""

from __future__ import annotations

from typing import Any

import pytest
from simulated_release import Simulation, failed


def other_type(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://slsa.dev/provenance/v1"


def audit_type(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://pot-attest.dev/attestation/audit/v0.1"


def no_subject(statement: dict[str, Any]) -> None:
    statement["subject"] = []


def two_subjects(statement: dict[str, Any]) -> None:
    statement["subject"] *= 2


def other_digest(statement: dict[str, Any]) -> None:
    statement["subject"][0]["digest"]["sha512"] = "00" * 64


def unknown_field(statement: dict[str, Any]) -> None:
    statement["predicate"]["verdict"] = "PASS"


def incomplete_inputs(statement: dict[str, Any]) -> None:
    statement["predicate"]["inputs"]["complete"] = False


def own_level(statement: dict[str, Any]) -> None:
    statement["predicate"]["claims"][0]["level"] = "proved"


def null_field(statement: dict[str, Any]) -> None:
    statement["predicate"]["audits"] = None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (other_type, "predicate"),
        (audit_type, "predicate"),
        (no_subject, "statement"),
        (two_subjects, "statement"),
        (other_digest, "statement"),
        (unknown_field, "predicate"),
        (incomplete_inputs, "predicate"),
        (own_level, "predicate"),
        (null_field, "predicate"),
    ],
)
def test_what_the_developer_signed_is_no_certificate(change: Any, code: str) -> None:
    simulation = Simulation().bend("child.statement", change)
    simulation.bend("lines", lambda lines: lines[2:])  # the parent is another model's business
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert failed(report) == {code}


def test_a_subject_that_is_not_the_file_list_is_denied() -> None:
    def other(statement: dict[str, Any]) -> None:
        statement["subject"][0]["digest"]["sha256"] = "ab" * 32

    report = Simulation().bend("child.statement", other).verify()
    assert report.verdict == "DENY"
    assert "subject" in failed(report)
