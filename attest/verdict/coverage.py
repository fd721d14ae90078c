"""Step 12: how much accepted audits cover, alone and united, in exact fractions.

Spec: `specs/verification.md`, step 12, "Coverage". A forger puts the policy's share of steps into as few segments as
can hold it. Audits whose challenges were drawn with different nonces are independent draws, so the probabilities of
missing a forged unit multiply; one nonce counts once. A draw that the prover could repeat counts as the worst of as
many. Where accepted auditors replayed every segment that there is, nothing is left to probability. Numbers are computed
here and never taken from anybody.

Shows: with what probability a run with the policy's share of forged steps would have been caught.
Does not show: that no further audit was made and left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Final

from attest.predicate import StepsProven
from attest.verdict.case import Case
from attest.verdict.collection import Audited
from attest.verdict.policy import Policy
from pot.audit.challenges.challenge import detection, detection_after_grinding
from pot.audit.result import ReplayedUnit

__all__ = ["Counted", "all_units", "check_coverage", "complete", "counts", "covering", "extra_units", "fewest_holding",
           "forged_units", "judge_coverage", "matched_in", "names", "percent", "population", "proven_steps",
           "segments_of", "united"]  # fmt: skip

_EXACT_BITS: Final = 1 << 17  # longer fractions take minutes to reduce, and many auditors make long ones


@dataclass(frozen=True)
class Counted:
    """An audit that counts: all drawn units match, and the prover could choose its draw among `tries` at most."""

    audit: Audited
    tries: int = 1


def population(case: Case, unit: str) -> int:
    """How many units the run has."""
    if case.chain is None:
        return 0
    if unit == "segment":
        return len(case.chain.segments)
    return sum(len(segment.steps) for segment in case.chain.segments)


def forged_units(case: Case, unit: str, share: Fraction) -> int:
    """In how many units a share of the run's steps can be forged, at least: so many a draw may count on."""
    if unit == "step" or case.chain is None:
        return max(1, ceil(share * population(case, unit)))
    return fewest_holding([len(segment.steps) for segment in case.chain.segments], share)


def fewest_holding(lengths: Iterable[int], share: Fraction) -> int:
    """How many segments of these lengths, longest first, hold this share of all steps; at least one."""
    found = Counter(lengths)
    left, taken = share * sum(length * count for length, count in found.items()), 0
    for length in sorted(found, reverse=True):
        if left <= 0:
            break
        some = min(found[length], ceil(left / length) if length else 0)
        left, taken = left - some * length, taken + some
    return max(1, taken)


def extra_units(audit: Audited) -> tuple[ReplayedUnit, ...]:
    """What an audit replayed beside the drawn units."""
    return audit.result.extra or ()


def all_units(audit: Audited) -> tuple[ReplayedUnit, ...]:
    """Everything that an audit replayed: the drawn units, and others beside them."""
    return (*audit.result.replays, *extra_units(audit))


def matched_in(audit: Audited, *, drawn: bool = False) -> set[int]:
    """The numbers of the units for which an audit says MATCH, and nothing else. `drawn`: of the challenge's alone."""
    others = {unit.unit_number for unit in all_units(audit) if unit.outcome != "MATCH"}
    units = audit.result.replays if drawn else all_units(audit)
    return {int(unit.unit_number) for unit in units if unit.unit_number not in others}


def segments_of(case: Case, audit: Audited, *, drawn: bool = False) -> set[int]:
    """The numbers of the segments that an audit replayed with a match: a step is replayed with its whole segment."""
    segments, numbers = case.chain.segments if case.chain else (), matched_in(audit, drawn=drawn)
    if audit.result.challenge.unit == "segment":
        return {number for number in numbers if 1 <= number <= len(segments)}
    ends = [segment.last for segment in segments]
    return {bisect_left(ends, number) + 1 for number in numbers if ends and 1 <= number <= ends[-1]}


def complete(case: Case, audits: Iterable[Audited]) -> bool:
    """Whether these audits together replayed every segment of the run."""
    found: set[int] = set().union(*(segments_of(case, audit) for audit in audits))
    return case.chain is not None and 0 < len(case.chain.segments) == len(found)


def proven_steps(case: Case) -> set[int]:
    """The numbers of the steps for which the certificate lists a step proof."""
    return {int(s.step) for claim in case.certificate.claims if isinstance(claim, StepsProven) for s in claim.steps}


def names(audits: Iterable[Audited]) -> list[str]:
    """The different auditors of these audits, each once: one who signs twice is one."""
    return sorted({audit.auditor for audit in audits if audit.auditor is not None})


def united(counted: Sequence[Counted], unit: str, units: int, forged: int) -> Fraction:
    """The probability that one of these draws meets one of `forged` forged units, of `units` in all.

    Different nonces are independent draws; of one nonce the larger draw holds the smaller one. Exact, until the numbers
    have more than `_EXACT_BITS`: from there on what is missed is rounded up to a multiple of 2^-512.
    """
    misses: dict[str, Fraction] = {}
    for item in counted:
        challenge = item.audit.result.challenge
        if challenge.unit == unit:
            missed = _missed(units, forged, len(challenge.chosen), item.tries)
            misses[challenge.nonce] = min(missed, misses.get(challenge.nonce, missed))
    total = Fraction(1)
    for missed in misses.values():
        if total.denominator.bit_length() + missed.denominator.bit_length() > _EXACT_BITS and len(misses) > 1:
            total, missed = _rounded_up(total), _rounded_up(missed)
        total *= missed
    return 1 - total


@lru_cache(maxsize=256)
def _missed(units: int, forged: int, sample: int, tries: int) -> Fraction:
    """What a draw misses, that of the worst of `tries`."""
    if tries == 1:
        return 1 - detection(units, forged, sample)
    return 1 - detection_after_grinding(units, forged, sample, tries)


def _rounded_up(share: Fraction) -> Fraction:
    return Fraction(-((-share.numerator << 512) // share.denominator), 1 << 512)


def covering(case: Case, policy: Policy | None, counted: Sequence[Counted]) -> tuple[Fraction, str]:
    """The better of what the draws of segments and the draws of steps give, and how it came about in words."""
    if policy is None or policy.coverage is None:
        return Fraction(0), "no policy says how many are enough"
    best = Fraction(0), "no draw counts"
    for unit in ("segment", "step"):
        own = [item for item in counted if item.audit.result.challenge.unit == unit]
        units = population(case, unit)
        if not own or not units:
            continue
        forged = forged_units(case, unit, policy.coverage[0])
        found = united(own, unit, units, forged)
        sizes = " and ".join(str(len(item.audit.result.challenge.chosen)) for item in own[:8])
        tries = max(item.tries for item in own)
        ground = f", the best of {tries} draws" if tries > 1 else ""
        words = f"{sizes} of {units} {unit}s{ground}: {forged} forged ones are caught with {percent(found)}"
        if found > best[0] or best[1] == "no draw counts":
            best = found, words
    return best


def counts(case: Case, policy: Policy | None, counted: Sequence[Counted]) -> bool:
    """Whether these audits alone reach the policy's coverage, with as many different auditors as it asks for."""
    audits = [item.audit for item in counted]
    if policy is None or policy.coverage is None or len(names(audits)) < policy.auditors:
        return False
    return covering(case, policy, counted)[0] >= policy.coverage[1]


def judge_coverage(
    case: Case, policy: Policy | None, counted: Sequence[Counted], shortfalls: Sequence[tuple[str, str]]
) -> None:
    """Writes `replay-coverage`: from one audit, from several united, or from all segments of the run.

    `shortfalls`: why other audits do not count, by subject.
    """
    honest = [audit for audit in case.audits if not any(unit.outcome == "MISMATCH" for unit in all_units(audit))]
    if complete(case, honest):
        case.one_forged = Fraction(1)
        _judge_complete(case, policy, honest, counted)
        return
    case.one_forged = _one_forged(case, counted)
    wanted = None if policy is None or policy.coverage is None else policy.coverage[1]
    enough = policy is not None and len(names(item.audit for item in counted)) >= policy.auditors
    short = list(shortfalls)
    for item in counted:
        subject, challenge = f"audit {item.audit.sha256[:16]}", item.audit.result.challenge
        found, words = covering(case, policy, [item])
        if wanted is not None and found >= wanted and enough:
            case.ledger.passed("replay-coverage", subject, words, "audited")
        elif wanted is None:
            size = f"{len(challenge.chosen)} of {challenge.population} {challenge.unit}s"
            short.append((subject, f"{size}; {words}"))
        else:
            short.append((subject, f"{words}, the policy asks for {percent(wanted)}"))
    if _passed(case):  # one audit that covers enough is enough
        return
    if len(counted) > 1 and wanted is not None:
        _judge_union(case, policy, counted, wanted)
    elif counted and not enough:
        short.insert(0, ("audits", _too_few(policy, [item.audit for item in counted])))
    if not _passed(case):
        for subject, detail in short:
            case.ledger.not_checked("replay-coverage", subject, detail)


def _one_forged(case: Case, counted: Sequence[Counted]) -> Fraction:
    """The probability that draws that count meet a single forged segment; by draws of steps, the shortest one."""
    segments = case.chain.segments if case.chain is not None else ()
    sizes = {"segment": 1, "step": min((len(segment.steps) for segment in segments), default=0)}
    return max(
        united(counted, unit, population(case, unit), size) if segments else Fraction(0) for unit, size in sizes.items()
    )


def _passed(case: Case) -> bool:
    return any(finding.code == "replay-coverage" and finding.status == "passed" for finding in case.ledger.findings)


def _judge_union(case: Case, policy: Policy | None, counted: Sequence[Counted], wanted: Fraction) -> None:
    audits = [item.audit for item in counted]
    found, words = covering(case, policy, counted)
    by = ", ".join(names(audits))
    if counts(case, policy, counted):
        case.ledger.passed("replay-coverage", "audits", f"united ({by}): {words}", "audited")
    elif found >= wanted:
        case.ledger.not_checked("replay-coverage", "audits", _too_few(policy, audits))
    else:
        detail = f"united ({by}): {words}, the policy asks for {percent(wanted)}"
        case.ledger.not_checked("replay-coverage", "audits", detail)


def _judge_complete(case: Case, policy: Policy | None, audits: Sequence[Audited], counted: Sequence[Counted]) -> None:
    """Any auditors may make up the whole where one is enough; else each must carry it: by a draw, or all alone."""
    units, part = population(case, "segment"), [audit for audit in audits if segments_of(case, audit)]
    carried = [item.audit for item in counted]
    for name in names(part):
        own = [audit for audit in part if audit.auditor == name]
        carried += own if complete(case, own) else []
    if policy is not None and policy.auditors > max(1, len(names(carried))):
        case.ledger.not_checked("replay-coverage", "run", _too_few(policy, carried))
        return
    detail = f"all {units} segments were replayed and match ({', '.join(names(part))}); nothing is left to probability"
    for code in ("replay", "replay-coverage"):
        case.ledger.passed(code, "run", detail, "audited")


def _too_few(policy: Policy | None, audits: Sequence[Audited]) -> str:
    wanted = policy.auditors if policy is not None else 1
    return f"the policy asks for {wanted} different auditors; these audits are by {', '.join(names(audits)) or 'none'}"


def check_coverage(case: Case) -> None:
    """The certificate's coverage against its evidence. Writes `coverage`."""
    stated = case.certificate.coverage
    if case.chain is None:
        case.ledger.not_checked("coverage", "coverage", "there is no transcript to count in")
        return
    replayed, accepted = _replayed(case.all_audits, stated.unit), _replayed(case.audits, stated.unit)
    expected = (str(population(case, stated.unit)), str(len(replayed)), str(len(proven_steps(case))))
    found = (stated.population, stated.replayed, stated.proved)
    if expected == found:
        known = accepted == replayed
        by = "" if known else f" by its audits, {len(accepted)} by accepted auditors"
        detail = f"{found[1]} of {found[0]} {stated.unit}s replayed{by}, {found[2]} steps proven"
        case.ledger.passed("coverage", "coverage", detail, "proved" if known else "declared")
    elif case.ledger.status("audit") == "not_checked" and case.certificate.audits:
        case.ledger.not_checked("coverage", "coverage", "an audit that it counts is missing")
    else:
        case.ledger.failed(
            "coverage", "coverage", "the evidence gives other numbers (population, replayed, proved)",
            expected=" ".join(expected), found=" ".join(found),
        )  # fmt: skip


def _replayed(audits: Iterable[Audited], unit: str) -> set[str]:
    """The drawn units of this kind that these audits call a match."""
    of_unit = (audit.result.replays for audit in audits if audit.result.challenge.unit == unit)
    return {replay.unit_number for replays in of_unit for replay in replays if replay.outcome == "MATCH"}


def percent(share: Fraction) -> str:
    """A probability in words, rounded down, so that nothing short of certain reads as 100 %."""
    hundredths = share.numerator * 10000 // share.denominator
    return f"{hundredths // 100}.{hundredths % 100:02d} %"
