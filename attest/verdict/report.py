"""The report: what verification found, as one document that every form of output shows.

Spec: `specs/verification.md`, "Report" (version `pot/report/v1`). It is deterministic: the same release bundle and
policy give the same bytes, apart from `time`. Text, page and HTTP answer are renderings of it and decide nothing.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from attest.verdict.findings import Finding, Level, Link, Status
from pot.canonical import Count, Decimal, Document, Hex32
from pot.commitments.hiding import Hiding

__all__ = [
    "EXIT_CODES",
    "MAX_GROUPS",
    "REPORT_VERSION",
    "Ancestor",
    "ClaimReport",
    "ClaimType",
    "Detection",
    "ExclusionSet",
    "InclusionSet",
    "NotShown",
    "Report",
    "ReportedCertificate",
    "ReportedComposition",
    "ReportedGroup",
    "ReportedHint",
    "ReportedModel",
    "ReportedPolicy",
    "RequirementResult",
    "Span",
    "StepResult",
    "Timeline",
    "Verdict",
]

REPORT_VERSION: Final = "pot/report/v1"
MAX_GROUPS: Final = 256  # of a composition that a report lists: 64 claims of 8 labels a group stay under 40 MB
Verdict = Literal["PASS", "DENY", "INCOMPLETE"]
ClaimType = Literal[
    "training-provenance", "dataset-exclusion", "dataset-inclusion", "data-composition", "steps-proven",
    "step-exclusion",
]  # fmt: skip
EXIT_CODES: Final[dict[Verdict, int]] = {"PASS": 0, "DENY": 1, "INCOMPLETE": 3}


class ExclusionSet(Document):
    """An exclusion set by what names it, and what would make the same root mean something else.

    `field`: as what the view saw was called in the training data of this model or an ancestor, where that was not the
    view's own name. `hiding`: the key that the records' digests are made with.
    """

    view: str
    records: Count
    root_blake3: Hex32
    field: str | None = None
    hiding: Hiding | None = None


class InclusionSet(ExclusionSet):
    """An inclusion set by the same."""


class ReportedGroup(Document):
    """One group of a composition. `labels`: in the order of the composition's `by`."""

    labels: list[str]
    records: Count
    bytes: Count
    tokens: Count | None = None


class ReportedComposition(Document):
    """A composition of one pre-committed dataset, its text cleaned. `left_out`: groups that are not listed here."""

    composition_sha256: Hex32
    dataset: str
    by: list[str]
    tokens_of: str | None = None
    groups: list[ReportedGroup]
    left_out: Count | None = None
    totals: ReportedGroup


class ClaimReport(Document):
    """One claim of one certificate: what it says, whether it holds, how strongly, and every link that it rests on.

    `training`: the commitments to training data that its proofs are against. `steps`: those that it is about;
    `every_step`: whether these are all steps of the run.
    """

    certificate_sha256: Hex32
    type: ClaimType
    sentence: str
    name: str | None = None
    exclusion: ExclusionSet | None = None
    inclusion: InclusionSet | None = None
    composition: ReportedComposition | None = None
    training: list[Hex32] | None = None
    steps: list[Count] | None = None
    every_step: bool | None = None
    verifier_chosen: bool | None = None
    status: Status
    level: Level
    links: list[Link]


class ReportedModel(Document):
    """The model at hand. `sha256`: its model-signing root digest, computed here."""

    name: str
    model_sha256: Hex32
    files: Count


class ReportedCertificate(Document):
    """The certificate that the verdict is about."""

    certificate_sha256: Hex32
    model: str
    model_sha256: Hex32
    signer: str | None = None
    stage: str
    semantics: str


class Ancestor(Document):
    """One model of the lineage, the model at hand first. `depth`: 0 for it, 1 for its parents, and so on."""

    depth: Count
    certificate_sha256: Hex32
    model: str | None = None
    model_sha256: Hex32
    signer: str | None = None
    stage: str | None = None
    semantics: str | None = None
    operation: str | None = None
    status: Status


class RequirementResult(Document):
    """One requirement of the policy and what was found for it."""

    claim: str
    level: Level
    exclusion: ExclusionSet | None = None
    inclusion: InclusionSet | None = None
    only: dict[str, list[str]] | None = None
    found: Level | None = None
    status: Status
    detail: str


class ReportedPolicy(Document):
    """The policy that was used."""

    policy_sha256: Hex32
    requirements: list[RequirementResult]


class StepResult(Document):
    """One of the fifteen steps: the worst of its findings."""

    number: Count
    title: str
    status: Status
    summary: str


class Span(Document):
    """Steps `first` to `last`, both included."""

    first: Count
    last: Count


class Detection(Document):
    """What the replays are worth: the sentence of `replay-coverage`, and what it takes for granted."""

    status: Status
    sentence: str
    one_forged: str
    assumed: list[str]


class ReportedHint(Document):
    """A statistical test that an accepted auditor signed. `roc`: pairs of parts, compared and claimed, as decimals."""

    auditor: str
    kind: Literal["memorization", "canaries"]
    status: Literal["consistent", "undecided", "no-sign"]
    sentence: str
    roc: list[list[Decimal]]


class Timeline(Document):
    """A run, drawn: its segments' last steps, what was replayed, proven or lost, each as ranges of steps.

    `ends` is empty where there are too many to draw; `left_out` counts ranges that are not listed.
    """

    certificate_sha256: Hex32
    steps: Count
    segments: Count
    ends: list[Count]
    replayed: list[Span]
    mismatched: list[Span]
    proven: list[Span]
    gaps: list[Count]
    left_out: Count | None = None
    detection: Detection
    hints: list[ReportedHint]


class NotShown(Document):
    """Something that nothing in this report shows."""

    code: str
    sentence: str


class Report(Document):
    """The report. `notes` are findings that count for nothing: junk lines, unused objects, other certificates."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    version: Literal["pot/report/v1"]
    verifier: str
    time: Annotated[str, Field(max_length=32)] | None = None
    verdict: Verdict
    reason: str
    model: ReportedModel
    certificate: ReportedCertificate | None = None
    policy: ReportedPolicy | None = None
    claims: list[ClaimReport]
    lineage: list[Ancestor]
    timelines: list[Timeline]
    steps: list[StepResult]
    findings: list[Finding]
    notes: list[Finding]
    not_shown: list[NotShown]

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 DENY, 3 INCOMPLETE."""
        return EXIT_CODES[self.verdict]
