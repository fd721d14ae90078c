"""Findings, levels and links: the atoms of a report, and the ledger that collects them for one certificate.

Spec: `specs/verification.md`, "Findings" and "Levels". A finding is the outcome of one check on one subject. A level
says how strong the evidence is, and is derived here from what was checked, never taken from the signer. Text from
outside is cleaned as it enters a finding, so that no form of the report can carry characters that lie to its reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from attest import plaintext
from attest.verdict.codes import CODES
from pot.canonical import Document

__all__ = ["LEVELS", "MAX_TEXT", "Finding", "Ledger", "Level", "Link", "Status", "clean", "rank", "weakest", "worst"]

Level = Literal["declared", "committed", "audited", "proved"]
LEVELS: Final[tuple[Level, ...]] = ("declared", "committed", "audited", "proved")
Status = Literal["passed", "failed", "not_checked"]

MAX_TEXT: Final = 600  # characters of untrusted text in one field of a finding


class Finding(Document):
    """The outcome of one check. `level`: what the check establishes where it passed. `spec`: its step's number."""

    code: str
    status: Status
    level: Level | None = None
    subject: str
    expected: str | None = None
    found: str | None = None
    detail: str
    spec: str


class Link(Document):
    """One link of a claim; `code` is that of the findings behind it. A claim is as strong as its weakest link."""

    code: str
    status: Status
    level: Level
    detail: str


def rank(level: Level) -> int:
    """0 for declared to 3 for proved."""
    return LEVELS.index(level)


def weakest(levels: Iterable[Level]) -> Level:
    """The lowest of the levels; `proved` for none."""
    return LEVELS[min((rank(level) for level in levels), default=len(LEVELS) - 1)]


def worst(statuses: Iterable[Status]) -> Status:
    """`failed` if any failed, else `not_checked` if any was not, else `passed`."""
    found = set(statuses)
    return "failed" if "failed" in found else "not_checked" if "not_checked" in found else "passed"


def clean(text: str) -> str:
    """`text` as `attest.plaintext.clean` leaves it, at most `MAX_TEXT` characters."""
    text = plaintext.clean(text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


@dataclass
class Ledger:
    """Collects findings about one certificate; `about` is the model's name, which every subject begins with."""

    findings: list[Finding] = field(default_factory=list)
    about: str = ""

    def add(
        self,
        code: str,
        status: Status,
        subject: str,
        detail: str,
        *,
        level: Level | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> Status:
        """Write one finding down and hand its status back."""
        self.findings.append(
            Finding(
                code=code,
                status=status,
                level=level if status == "passed" else None,
                subject=clean(f"{self.about}: {subject}" if self.about else subject),
                expected=None if expected is None else clean(expected),
                found=None if found is None else clean(found),
                detail=clean(detail),
                spec=str(CODES[code].step),
            )
        )
        return status

    def passed(self, code: str, subject: str, detail: str, level: Level = "proved") -> Status:
        """The check was made and holds."""
        return self.add(code, "passed", subject, detail, level=level)

    def failed(
        self, code: str, subject: str, detail: str, expected: str | None = None, found: str | None = None
    ) -> Status:
        """The check was made and is false."""
        return self.add(code, "failed", subject, detail, expected=expected, found=found)

    def not_checked(self, code: str, subject: str, detail: str) -> Status:
        """The check could not be made; `detail` says why."""
        return self.add(code, "not_checked", subject, detail)

    def status(self, *codes: str) -> Status:
        """The worst status of the findings with these codes; `not_checked` if there is none."""
        found = [finding.status for finding in self.findings if finding.code in codes]
        return worst(found) if found else "not_checked"
