"""Step 12: what accepted auditors say of segments that nobody could, or had to, replay bit by bit.

Spec: `specs/verification.md`, step 12, "Screening and tolerance". Screening is cheap and looks at every segment; what
it marks is no lie yet, and what it passes is not shown. A tolerance says that a replay on another machine came near
enough. Neither lifts the level of any claim, and neither makes a verdict worse.

Shows: which segments look unlike training and were replayed by nobody; whose noise explains what did not match.
Does not show: that the other segments are honest.
"""

from __future__ import annotations

from attest.verdict.case import Case
from attest.verdict.collection import Audited
from attest.verdict.coverage import population, segments_of

__all__ = ["check_screening"]

_NAMED = 10


def check_screening(case: Case) -> None:
    """Writes `screening` and `replay-tolerance`, each where an accepted audit says something about it."""
    screened = [audit for audit in case.audits if audit.result.screening is not None]
    if screened:
        _check_suspicious(case, screened)
    for audit in case.audits:
        if audit.result.tolerance is not None:
            _check_tolerance(case, audit)


def _check_suspicious(case: Case, screened: list[Audited]) -> None:
    found: dict[int, str] = {}
    unlisted, blind = 0, set[str]()
    for audit in screened:
        screening = audit.result.screening
        if screening is None:
            continue
        unlisted = max(unlisted, int(screening.flagged) - len(screening.suspicious))
        blind |= set(screening.unread)
        for number in screening.suspicious:
            found.setdefault(int(number), audit.auditor or "")
    replayed: set[int] = set().union(*(segments_of(case, audit) for audit in case.audits))
    left = [number for number in found if number not in replayed]
    unread = f"; not readable in some segments: {', '.join(sorted(blind))}" if blind else ""
    if left:
        detail = f"{found[left[0]]} finds {_listed(left)} unlike training, and no accepted auditor replayed them"
        case.ledger.not_checked("screening", "run", detail + unread)
    elif unlisted:
        detail = f"{unlisted} segments more look unlike training than the audit lists"
        case.ledger.not_checked("screening", "run", detail + unread)
    elif found:
        detail = f"{_listed(list(found))} looked unlike training; accepted auditors replayed them, and they match"
        case.ledger.passed("screening", "run", detail + unread, "committed")
    else:
        count, by = population(case, "segment"), screened[0].auditor
        detail = f"{count} segments look like training, by checks that execute nothing ({by})"
        case.ledger.passed("screening", "run", detail + unread, "committed")


def _check_tolerance(case: Case, audit: Audited) -> None:
    tolerance, subject = audit.result.tolerance, f"audit {audit.sha256[:16]}"
    if tolerance is None:
        return
    numbers = [int(item.segment) for item in tolerance.segments if not (item.within and item.usable)]
    if tolerance.flagged:
        detail = "the residuals go one way all along, more than noise would"
    elif numbers:
        detail = f"{_listed(numbers)}: too far, or the tolerance could not tell a forgery"
    elif not tolerance.segments:
        detail = "no segment was measured"
    else:
        every = _listed([int(item.segment) for item in tolerance.segments])
        detail = f"{every}: within the noise of {audit.auditor}'s machine; no match"
        case.ledger.passed("replay-tolerance", subject, detail, "committed")
        return
    case.ledger.not_checked("replay-tolerance", subject, detail)


def _listed(numbers: list[int]) -> str:
    more = " ..." if len(numbers) > _NAMED else ""
    return f"segments {', '.join(str(number) for number in sorted(numbers)[:_NAMED])}{more}"
