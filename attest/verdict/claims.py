"""From findings to claims: which links each claim rests on, and the level that the weakest one leaves.

Spec: `specs/verification.md`, "Claims and their links". A claim that holds over the lineage holds only if every
ancestor shows it; the ancestor's own links count through it.

Shows: for every claim, each link with its status and level.
Does not show: anything that is no link; see `NOT_SHOWN`.
"""

from __future__ import annotations

from collections.abc import Iterable

from attest.predicate import TrainingProvenance
from attest.verdict.case import Case
from attest.verdict.codes import CODES
from attest.verdict.findings import Link, weakest, worst
from attest.verdict.report import ClaimReport
from attest.verdict.sentences import PROVENANCE, Proven, exclusion_sentence, steps_sentence
from attest.verdict.sets import left_out, united_fields

__all__ = ["compose_claims", "same_claim"]

_BEFORE_ORDER = ("precommit", "inputs", "dataset-commitment")
_AFTER_ORDER = ("transcript", "chain", "fork")
_END_LINKS = ("released-weights", "subject", "files")
_OVER_LINEAGE = ("training-provenance", "dataset-exclusion")


def compose_claims(case: Case, sets: list[ClaimReport], steps: list[ClaimReport]) -> None:
    """Put the claims of a certificate together. Writes `lineage-claim`; fills `case.claims`.

    `sets`: exclusions, inclusions and compositions, with the links of step 10.
    """
    claims: list[ClaimReport] = []
    if any(isinstance(claim, TrainingProvenance) for claim in case.certificate.claims):
        claims.append(_provenance(case))
    for claim in sets:
        run = [*_run_links(case), *_data_ties(case, claim), *_trained_on(case), *_links(case, _END_LINKS)]
        claims.append(_with(claim, run))
    for proven in steps:
        ties = [case.link("points-tie"), case.link("initial-weights")]  # the induction over states begins at the first
        run = [*_run_links(case), *ties, *_links(case, _END_LINKS)]
        claims.append(_with(proven if proven.type != "steps-proven" else _worded_steps(case, proven), run))
    if left_out(case.commitments.values()):
        case.not_shown.add("records-left-out")
    case.claims = [_worded(_over_lineage(case, claim)) for claim in claims]


def same_claim(one: ClaimReport, other: ClaimReport) -> bool:
    """Whether two certificates make the same claim: same type and, for exclusions, the same set.

    What the field that a view saw is called is each training data's own matter; the claim over the lineage names all.
    """
    if one.type != other.type:
        return False
    if one.type != "dataset-exclusion":
        return True
    ours, theirs = one.exclusion, other.exclusion
    return ours is not None and theirs is not None and ours == theirs.model_copy(update={"field": ours.field})


def _provenance(case: Case) -> ClaimReport:
    links = [*_run_links(case), case.link("seed"), *_trained_on(case), *_links(case, _END_LINKS)]
    empty = ClaimReport(
        certificate_sha256=case.sha256,
        type="training-provenance",
        sentence=PROVENANCE,
        status="passed",
        level="proved",
        links=[],
    )
    return _with(empty, links)


def _worded_steps(case: Case, claim: ClaimReport) -> ClaimReport:
    """A claim of proven steps with its sentence, and whether it is about all steps or those that a verifier drew."""
    numbers = set(claim.steps or ())
    segments = case.chain.segments if case.chain is not None else ()
    steps = {step.step for segment in segments for step in segment.steps}
    kits = [known.kit for known in case.proven.values() if known.kit is not None]
    proven = Proven(
        len(numbers & steps),
        len(steps),
        tied=case.tied is not None,
        verifier_chosen=any(c.unit == "step" and set(c.chosen) <= numbers for c in case.challenges),
        slack=max((kit.slack for kit in kits), default=0),
        auto=any(kit.circuit.family == "auto" for kit in kits),
        trained=case.trained,
    )
    return claim.model_copy(
        update={
            "sentence": steps_sentence(proven),
            "every_step": proven.every,
            "verifier_chosen": proven.verifier_chosen,
        }
    )


def _trained_on(case: Case) -> list[Link]:
    """That the run did what its transcript says, with the records that were committed."""
    return [
        case.link("records-tie"),
        case.link("initial-weights"),
        case.link("replay", best=True),
        case.link("replay-coverage", best=True),
    ]


def _data_ties(case: Case, claim: ClaimReport) -> list[Link]:
    """That another view, or a composition, is what the data gives: only a word until an auditor made it again."""
    if claim.composition is not None:
        return [case.link("composition-tie", about=[f"composition {claim.composition.composition_sha256}"])]
    if claim.type == "data-composition":
        return [case.link("composition-tie", about=[])]
    if not any(link.code == "same-shards" for link in claim.links):
        return []
    own = {item.commitment_sha256 for item in case.precommit.data} if case.precommit else set()
    return [case.link("view-tie", about=[f"object {sha256}" for sha256 in claim.training or () if sha256 not in own])]


def _run_links(case: Case) -> list[Link]:
    """The links of the run itself. No seed fixes the order of a stream: its link cannot be more than `committed`."""
    found = {finding.code for finding in case.ledger.findings}
    order = [code for code in ("order", "stream-order") if code in found] or ["order"]
    return _links(case, (*_BEFORE_ORDER, *order, *_AFTER_ORDER))


def _links(case: Case, codes: Iterable[str]) -> list[Link]:
    return [case.link(code) for code in codes]


def _with(claim: ClaimReport, more: list[Link]) -> ClaimReport:
    """The claim with further links: its level is the weakest link's; a link that blocks must have passed."""
    links = [*claim.links, *more]
    if any(link.status == "failed" for link in links):
        status = "failed"
    elif any(link.status == "not_checked" and CODES[link.code].blocks for link in links):
        status = "not_checked"
    else:
        status = "passed"
    return claim.model_copy(update={"links": links, "status": status, "level": weakest(link.level for link in links)})


def _over_lineage(case: Case, claim: ClaimReport) -> ClaimReport:
    if claim.type not in _OVER_LINEAGE or not case.certificate.inputs.parents:
        return claim
    known = {parent.sha256: parent for parent in case.parents}
    links = []
    for item in case.certificate.inputs.parents:
        parent = known.get(item.certificate_sha256)
        if parent is None:
            detail = f"the certificate of parent {item.model_sha256[:16]} is missing or not accepted"
            case.ledger.not_checked("lineage-claim", f"{claim.type} over the lineage", detail)
            links.append(Link(code="lineage-claim", status="not_checked", level="declared", detail=detail))
        else:
            links.append(_parent_link(case, claim, parent))
    return _with(_with_fields(claim, case.parents), links)


def _with_fields(claim: ClaimReport, parents: Iterable[Case]) -> ClaimReport:
    """An exclusion over the lineage, with the field names of every ancestor's training data."""
    if claim.exclusion is None:
        return claim
    theirs = [o.exclusion for parent in parents for o in parent.claims if same_claim(claim, o) and o.exclusion]
    found = united_fields([claim.exclusion.field, *(exclusion.field for exclusion in theirs)])
    return claim.model_copy(update={"exclusion": claim.exclusion.model_copy(update={"field": found})})


def _worded(claim: ClaimReport) -> ClaimReport:
    """The claim with its sentence as it stands over the lineage."""
    if claim.exclusion is None or claim.type != "dataset-exclusion":
        return claim
    named = claim.exclusion
    sentence = exclusion_sentence(named.view, fields=named.field, hidden=named.hiding is not None)
    return claim.model_copy(update={"sentence": sentence})


def _parent_link(case: Case, claim: ClaimReport, parent: Case) -> Link:
    name = parent.certificate.model.name
    subject = f"{claim.type} over the lineage"
    theirs = [other for other in parent.claims if same_claim(claim, other)]
    if claim.type == "dataset-exclusion" and claim.exclusion is None:
        detail = "the exclusion set is not known"
        case.ledger.not_checked("lineage-claim", subject, detail)
        return Link(code="lineage-claim", status="not_checked", level="declared", detail=detail)
    if not theirs:
        detail = f"{name} makes no such claim, so it does not hold over the lineage"
        case.ledger.failed("lineage-claim", subject, detail, expected="every ancestor shows it", found=f"not {name}")
        return Link(code="lineage-claim", status="failed", level="declared", detail=detail)
    level = weakest(other.level for other in theirs)
    status = worst(other.status for other in theirs)
    if status == "passed":
        detail = f"{name} shows it: {level}"
    else:
        detail = f"{name}: {_why(next(other for other in theirs if other.status == status))}"
    case.ledger.add("lineage-claim", status, subject, detail, level=level)
    return Link(code="lineage-claim", status=status, level=level, detail=detail)


def _why(claim: ClaimReport) -> str:
    bad = [link for link in claim.links if link.status == "failed"]
    bad = bad or [link for link in claim.links if link.status == "not_checked" and CODES[link.code].blocks]
    return f"{bad[0].code}: {bad[0].detail}" if bad else "not shown"
