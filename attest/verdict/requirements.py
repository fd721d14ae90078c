"""Step 15, one requirement at a time: the policy's words against the claims of the certificate.

Spec: `specs/verification.md`, "Policy file". A set is the one that is meant only if view, number of records, root and
hiding key are those of the policy, and if the training data's field is one that the policy accepts: a claim about
titles is none about texts, whatever its root. A composition is required of every dataset that the run pre-committed.

Shows: whether the certificate shows what the policy requires, at its level. Does not show: more than the claims do.
"""

from __future__ import annotations

from typing import Any

from attest.verdict.case import Case
from attest.verdict.codes import CODES
from attest.verdict.composition import first_other_label
from attest.verdict.findings import Ledger, Level, Status, clean, rank, weakest
from attest.verdict.policy import ExclusionPin, Requirement, pin_words
from attest.verdict.report import ClaimReport, ExclusionSet, InclusionSet, RequirementResult

__all__ = ["require", "require_independence"]


def require(case: Case, requirement: Requirement, decision: Ledger) -> RequirementResult:
    """One requirement against the claims of the certificate. Writes `requirement`."""
    found: Level | None
    if requirement.claim == "data-composition":
        status, detail, found = _compositions(case, requirement)
    else:
        status, detail, found = _best(case, requirement)
    decision.add("requirement", status, f"{requirement.claim} at {requirement.level}", detail, level=found)
    exclusion, inclusion = requirement.exclusion, requirement.inclusion
    return RequirementResult(
        claim=requirement.claim,
        level=requirement.level,
        exclusion=None if exclusion is None else ExclusionSet(**_set_of(exclusion)),
        inclusion=None if inclusion is None else InclusionSet(**_set_of(inclusion)),
        only=requirement.only,
        found=found,
        status=status,
        detail=clean(detail),
    )


def require_independence(case: Case, decision: Ledger) -> None:
    """`audit.independent` for one certificate of the lineage. Writes `requirement`."""
    link = case.link("independent-audits")
    detail = link.detail if link.detail != "not reached" else "no accepted audit carries a commitment to inner digests"
    decision.add(
        "requirement", link.status, f"{case.certificate.model.name}: independent audits", detail, level=link.level
    )


def _set_of(pin: ExclusionPin) -> dict[str, Any]:
    field = None if pin.field is None else clean(pin.field)
    return {**pin.model_dump(exclude={"field", "hiding"}), "field": field, "hiding": pin.hiding}


def _best(case: Case, requirement: Requirement) -> tuple[Status, str, Level | None]:
    """The strongest claim of this kind; for a set, of this very set."""
    pin = requirement.exclusion or requirement.inclusion
    claims = [claim for claim in case.claims if claim.type == requirement.claim and _is_meant(claim, pin)]
    best = max(
        claims,
        key=lambda claim: (_met(requirement, claim)[0] == "passed", claim.status == "passed", rank(claim.level)),
        default=None,
    )
    if best is None:
        return "not_checked", _why_none(case, requirement, pin), None
    status, detail = _met(requirement, best)
    return status, detail, best.level if best.status == "passed" else None


def _is_meant(claim: ClaimReport, pin: ExclusionPin | None) -> bool:
    """Whether the claim is about the pinned set, in a field that the pin accepts: the view's own name, or its own."""
    if pin is None:
        return True
    named = claim.exclusion or claim.inclusion
    return named is not None and _same_set(named, pin) and named.field in (None, pin.field)


def _same_set(named: ExclusionSet, pin: ExclusionPin) -> bool:
    ours = (pin.view, pin.records, pin.root_blake3, pin.hiding)
    return (named.view, named.records, named.root_blake3, named.hiding) == ours


def _why_none(case: Case, requirement: Requirement, pin: ExclusionPin | None) -> str:
    if pin is None:
        return "the certificate makes no claim of this kind"
    for claim in case.claims:
        named = claim.exclusion or claim.inclusion
        if claim.type == requirement.claim and named is not None and _same_set(named, pin):
            return f"the claim for {pin_words(pin)} is about the field {named.field}, which the policy does not accept"
    return f"the certificate makes no claim of this kind for {pin_words(pin)}"


def _met(requirement: Requirement, claim: ClaimReport) -> tuple[Status, str]:
    if claim.status == "failed":
        bad = next(link for link in claim.links if link.status == "failed")
        return "failed", f"the claim is false: {bad.code}: {bad.detail}"
    if claim.status != "passed":
        bad = next(link for link in claim.links if link.status == "not_checked" and CODES[link.code].blocks)
        return "not_checked", f"the claim is not shown: {bad.code}: {bad.detail}"
    if rank(claim.level) < rank(requirement.level):
        weak = min(claim.links, key=lambda link: rank(link.level))
        return "not_checked", f"only {claim.level}: its weakest link is {weak.code}: {weak.detail}"
    if requirement.every_step and not claim.every_step:
        return "not_checked", f"the claim is about {len(claim.steps or ())} steps, not about every step of the run"
    if requirement.verifier_chosen and not claim.verifier_chosen:
        return "not_checked", "the proven steps do not hold a verifier's draw from all steps of the run"
    return "passed", f"shown at level {claim.level}"


def _compositions(case: Case, requirement: Requirement) -> tuple[Status, str, Level | None]:
    """One composition for every pre-committed dataset, by the labels that the policy names; none with another label."""
    if case.precommit is None:
        return "not_checked", "there is no pre-commitment that names the datasets", None
    only = requirement.only or {}
    levels: list[Level] = []
    for item in case.precommit.data:
        mine = [claim for claim in case.claims if _is_of(case, claim, item.commitment_sha256, only)]
        if not mine:
            by = f" by {', '.join(sorted(only))}" if only else ""
            return "not_checked", f"the certificate makes no claim of this kind{by} for dataset {item.name}", None
        for claim in mine:
            other = _other_label(case, claim, only)
            if other is not None:
                name, label = other
                return "failed", f"dataset {item.name} holds records whose {name} is {clean(label)!r}", None
        best = max(mine, key=lambda claim: (claim.status == "passed", rank(claim.level)))
        status, detail = _met(requirement, best)
        if status != "passed":
            return status, f"dataset {item.name}: {detail}", best.level if best.status == "passed" else None
        levels.append(best.level)
    return "passed", f"shown for every dataset, at level {weakest(levels)}", weakest(levels)


def _is_of(case: Case, claim: ClaimReport, training_sha256: str, only: dict[str, list[str]]) -> bool:
    """Whether a composition is of this dataset and by the labels that the policy limits; one that is missing may be."""
    if claim.type != "data-composition" or claim.training != [training_sha256]:
        return False
    raw = case.compositions.get(claim.composition.composition_sha256) if claim.composition is not None else None
    return raw is None or only.keys() <= set(raw.by)


def _other_label(case: Case, claim: ClaimReport, only: dict[str, list[str]]) -> tuple[str, str] | None:
    raw = case.compositions.get(claim.composition.composition_sha256) if claim.composition is not None else None
    return None if raw is None or not only else first_other_label(raw, only)
