"""The report as text for a terminal: verdict and reason, claims with their links, lineage, steps, what is not shown.

Decides nothing and adds nothing; every line is cleaned again, whatever the report went through before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attest.plaintext import clean
from attest.verdict.findings import Finding
from attest.verdict.report import (
    Ancestor,
    ClaimReport,
    ExclusionSet,
    Report,
    ReportedComposition,
    Span,
    Timeline,
)

__all__ = ["MAX_GROUP_LINES", "render_text"]

MAX_GROUP_LINES: Final = 50  # of a composition; a terminal shows no more at once

_MARKS = {"passed": "ok  ", "failed": "FAIL", "not_checked": "--  "}


def render_text(report: Report) -> str:
    """The report as lines of text, without a newline at the end."""
    return "\n".join(clean(line).rstrip() for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.verdict}  {report.model.name}"
    yield f"  {report.reason}"
    yield f"  model {report.model.model_sha256} ({report.model.files} files)"
    if report.certificate is not None:
        signer = report.certificate.signer or "signer not checked"
        yield f"  certificate {report.certificate.certificate_sha256} by {signer}"
    if report.policy is not None and report.policy.requirements:
        yield ""
        yield f"Required by policy {report.policy.policy_sha256[:16]}"
        for requirement in report.policy.requirements:
            yield f"  {_MARKS[requirement.status]} {requirement.claim} at {requirement.level}: {requirement.detail}"
            named = requirement.exclusion or requirement.inclusion
            if named is not None:
                yield f"         {_set(named)}"
            for name, labels in (requirement.only or {}).items():
                yield f"         only {name}: {', '.join(labels[:20])}{' ...' if len(labels) > 20 else ''}"
    names = {ancestor.certificate_sha256: ancestor.model or "" for ancestor in report.lineage}
    if report.claims:
        yield ""
        yield "Claims (each is as strong as its weakest link)"
        for claim in report.claims:
            yield from _claim(claim, names)
    if report.timelines:
        yield ""
        yield "Runs"
        for timeline in report.timelines:
            yield from _timeline(timeline, names)
    if report.lineage:
        yield ""
        yield "Lineage"
        yield from map(_ancestor, report.lineage)
    yield ""
    yield "Steps"
    for step in report.steps:
        yield f"  {step.number.rjust(2)} {_MARKS[step.status]} {step.title}: {step.summary}"
    yield from _section("Found to be false", [f for f in report.findings if f.status == "failed"])
    yield from _section("Notes (they count for nothing)", report.notes)
    yield ""
    yield "Not shown"
    for item in report.not_shown:
        yield f"  - {item.sentence}"


def _timeline(timeline: Timeline, names: dict[str, str]) -> Iterator[str]:
    name = names.get(timeline.certificate_sha256, "")
    yield f"  {name}: {timeline.steps} steps in {timeline.segments} segments"
    yield f"       replayed  {_spans(timeline.replayed)}"
    yield f"       proven    {_spans(timeline.proven)}"
    if timeline.mismatched:
        yield f"       another result: {_spans(timeline.mismatched)}"
    if timeline.gaps:
        yield f"       gaps      after steps {', '.join(timeline.gaps[:12])}{' ...' if len(timeline.gaps) > 12 else ''}"
    yield f"       {_MARKS[timeline.detection.status]} {timeline.detection.sentence}; {timeline.detection.one_forged}"
    for hint in timeline.hints:
        yield f"       hint by {hint.auditor}, no evidence: {hint.sentence}: {hint.status}"


def _spans(spans: list[Span]) -> str:
    words = [span.first if span.first == span.last else f"{span.first}-{span.last}" for span in spans[:12]]
    return f"steps {', '.join(words)}{' ...' if len(spans) > 12 else ''}" if words else "none"


def _claim(claim: ClaimReport, names: dict[str, str]) -> Iterator[str]:
    what = claim.name or (f"{len(claim.steps)} steps" if claim.steps else "")
    level = claim.level if claim.status == "passed" else claim.status.replace("_", " ")
    yield f"  {_MARKS[claim.status]} {claim.type} {what} [{level}] of {names.get(claim.certificate_sha256, '')}"
    yield f"         {claim.sentence}"
    named = claim.exclusion or claim.inclusion
    if named is not None:
        yield f"         {_set(named)}"
    if claim.composition is not None:
        yield from _composition(claim.composition)
    strong = [link.code for link in claim.links if (link.status, link.level) == ("passed", "proved")]
    for link in claim.links:
        if link.code not in strong:
            yield f"       {_MARKS[link.status]} {link.level.ljust(9)} {link.code.ljust(18)} {link.detail}"
    for start in range(0, len(strong), 6):
        yield f"       {_MARKS['passed']} proved    {', '.join(strong[start : start + 6])}"


def _set(named: ExclusionSet) -> str:
    words = f"{named.records} records, view {named.view}, root {named.root_blake3[:16]}"
    words += f", field {named.field}" if named.field is not None else ""
    return words + (f", under key {named.hiding.id[:16]}" if named.hiding is not None else "")


def _composition(composition: ReportedComposition) -> Iterator[str]:
    """The first groups of a composition, and its totals."""
    listed = composition.groups[:MAX_GROUP_LINES]
    for group in [*listed, composition.totals]:
        label = ", ".join(group.labels) if group.labels else "all"
        tokens = f" {group.tokens} tokens" if group.tokens is not None else ""
        yield f"           {label}: {group.records} records, {group.bytes} bytes{tokens}"
    more = len(composition.groups) - len(listed) + int(composition.left_out or "0")
    if more:
        yield f"           {more} more groups are in the totals and not listed here"


def _ancestor(ancestor: Ancestor) -> str:
    indent = "  " * (int(ancestor.depth) + 1)
    by = f", by {ancestor.signer}" if ancestor.signer else ""
    how = f", first weights by {ancestor.operation}" if ancestor.operation else ""
    kind = f" ({ancestor.stage}, {ancestor.semantics}{how}{by})" if ancestor.stage else " (no certificate at hand)"
    return f"{indent}{_MARKS[ancestor.status]} {ancestor.model or 'unknown model'} {ancestor.model_sha256[:16]}{kind}"


def _section(title: str, findings: list[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield ""
    yield title
    for finding in findings:
        yield f"  {finding.code} (step {finding.spec}) {finding.subject}: {finding.detail}"
        if finding.expected is not None:
            yield f"      expected {finding.expected}"
        if finding.found is not None:
            yield f"      found    {finding.found}"
