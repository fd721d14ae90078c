"""Several auditors: what their draws cover together, what adds nothing, and how many of them a policy wants."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import pytest
from several_auditors import policy_of, result_of, with_audits
from simulated_release import Simulation, failed

from attest.verdict.coverage import Counted, united
from attest.verdict.report import Report
from pot.audit.challenges.challenge import detection, detection_after_grinding

Made = Callable[[dict[str, Any]], list[tuple[str, dict[str, Any]]]]


def judged(made: Made, **policy: Any) -> Report:
    simulation = Simulation().bend("policy", lambda value: policy_of(value, **policy))
    return with_audits(simulation, "parent", made).verify()


def coverage(report: Report) -> list[str]:
    """The details of the parent's `replay-coverage` findings that passed."""
    return [
        f"{finding.subject}: {finding.detail}"
        for finding in report.findings
        if finding.code == "replay-coverage" and finding.status == "passed" and finding.subject.startswith("parent")
    ]


def draw(number: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The draw of one segment that is the `number`-th of those whose segments are all different."""

    def make(run: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for nonce in range(100):
            result = result_of(run, f"nonce {nonce}")
            found.setdefault(result["challenge"]["chosen"][0], result)
        return [found[unit] for unit in sorted(found)][number]

    return make


class Draw:
    """Stands in for an accepted audit in the arithmetic: unit, nonce and size of its draw."""

    def __init__(self, nonce: str, chosen: int, unit: str = "segment") -> None:
        self.result = self.challenge = self
        self.nonce, self.chosen, self.unit = nonce, tuple(map(str, range(chosen))), unit


def counted(*draws: Draw, tries: int = 1) -> list[Counted]:
    return [Counted(item, tries) for item in draws]  # type: ignore[arg-type]


def test_independent_draws_multiply_what_they_miss() -> None:
    """By counting: every pair of draws from the population, against every place of the forged units."""
    units, forged, first, second = 6, 2, 2, 3
    bad = {0, 1}
    pairs = list(product(combinations(range(units), first), combinations(range(units), second)))
    met = sum(bool(bad & {*one, *other}) for one, other in pairs)
    found = united(counted(Draw("aa", first), Draw("bb", second)), "segment", units, forged)
    assert found == Fraction(met, len(pairs))


def test_one_nonce_counts_once_and_another_unit_not_at_all() -> None:
    alone = united(counted(Draw("aa", 3)), "segment", 10, 2)
    assert united(counted(Draw("aa", 3), Draw("aa", 2), Draw("aa", 3)), "segment", 10, 2) == alone
    assert united(counted(Draw("aa", 3), Draw("bb", 9, "step")), "segment", 10, 2) == alone
    assert united([], "segment", 10, 2) == 0


def test_a_draw_that_could_be_repeated_counts_as_the_worst_of_them() -> None:
    once = detection(10, 2, 3)
    assert united(counted(Draw("aa", 3), tries=2), "segment", 10, 2) == detection_after_grinding(10, 2, 3, 2) <= once**2


def test_many_large_draws_are_rounded_against_the_prover() -> None:
    """Sixty-four auditors over a long run: the exact fraction would have millions of digits."""
    draws = [Draw(f"{number:02x}", 40) for number in range(64)]
    found = united(counted(*draws), "step", 400_000, 4000)
    assert found == 0  # other units
    draws = [Draw(f"{number:02x}", 40, "step") for number in range(64)]
    found = united(counted(*draws), "step", 400_000, 4000)
    exact = 1 - (1 - detection(400_000, 4000, 40)) ** 64
    assert 0 <= exact - found < Fraction(1, 1 << 500)
    draws = [Draw(f"{number:02x}", 4000, "step") for number in range(64)]
    assert 1 - Fraction(1, 1 << 500) < united(counted(*draws), "step", 400_000, 4000) < 1


def test_three_small_audits_cover_together_what_none_does_alone() -> None:
    report = judged(lambda run: [(name, result_of(run, name)) for name in ("Argus", "Bellerophon", "Cassandra")])
    assert report.verdict == "PASS"
    assert [text.split(": ")[1] for text in coverage(report)] == ["audits"]
    assert "united (Argus, Bellerophon, Cassandra): 1 and 1 and 1 of 4 segments" in coverage(report)[0]
    assert "87.50 %" in coverage(report)[0]


def test_two_of_them_do_not() -> None:
    report = judged(lambda run: [(name, result_of(run, name)) for name in ("Argus", "Bellerophon")])
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert "75.00 %, the policy asks for 80.00 %" in " ".join(f.detail for f in report.findings)


def test_the_same_draw_signed_by_three_adds_nothing() -> None:
    report = judged(lambda run: [(name, result_of(run, "one")) for name in ("Argus", "Bellerophon", "Cassandra")])
    assert report.verdict == "INCOMPLETE"
    assert coverage(report) == []


def test_an_auditor_with_an_open_unit_adds_nothing() -> None:
    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        results = [(name, result_of(run, name)) for name in ("Argus", "Bellerophon", "Cassandra")]
        results[1][1]["replays"][0]["outcome"] = "INCONCLUSIVE"
        return results

    assert judged(made).verdict == "INCOMPLETE"


def test_a_mismatch_of_one_denies_for_all() -> None:
    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        results = [(name, result_of(run, name)) for name in ("Argus", "Bellerophon", "Cassandra")]
        results[2][1]["replays"][0]["outcome"] = "MISMATCH"
        return results

    report = judged(made)
    assert report.verdict == "DENY"
    assert "replay" in failed(report)


@pytest.mark.parametrize(("drawn", "beside", "verdict"), [(4, 0, "PASS"), (3, 0, "INCOMPLETE"), (3, 1, "PASS")])
def test_segments_that_add_up_to_the_whole_run_leave_nothing_to_probability(
    drawn: int, beside: int, verdict: str
) -> None:
    """Whoever drew them; also with a segment that was replayed because it looked suspicious."""

    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        results = [("Argus", draw(number)(run)) for number in range(drawn)]
        missing = {"1", "2", "3", "4"} - {unit["unit_number"] for _, r in results for unit in r["replays"]}
        if beside:
            results[0][1]["extra"] = [{"unit_number": number, "outcome": "MATCH"} for number in sorted(missing)]
        return results

    def certain(policy: dict[str, Any]) -> None:
        policy_of(policy, coverage={"forged": "0.25", "detect": "1"})

    simulation = with_audits(Simulation().bend("policy", certain), "parent", made)
    with_audits(simulation, "child", lambda run: [("Argus", draw(number)(run)) for number in range(3)])
    simulation.bends["policy"].append(lambda policy: policy["require"].pop() and None)
    report = simulation.verify()
    assert report.verdict == verdict
    whole = any("all 4 segments were replayed" in text for text in coverage(report))
    assert whole == (verdict == "PASS")
    unaudited = "unaudited-steps" in {item.code for item in report.not_shown}
    assert unaudited == (verdict != "PASS")


def test_units_that_the_run_does_not_have_complete_nothing() -> None:
    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        result = draw(0)(run)
        result["extra"] = [{"unit_number": str(number), "outcome": "MATCH"} for number in (90, 91, 92)]
        return [("Argus", result)]

    report = judged(made, coverage={"forged": "0.25", "detect": "1"})
    assert report.verdict == "INCOMPLETE"
    assert coverage(report) == []


@pytest.mark.parametrize(("wanted", "verdict"), [(1, "PASS"), (2, "INCOMPLETE")])
def test_one_identity_is_one_auditor_however_often_it_signs(wanted: int, verdict: str) -> None:
    """A49."""

    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return [("Argus", result_of(run, nonce, detect="0.8")) for nonce in ("one", "two", "three")]

    def one_auditor(policy: dict[str, Any]) -> None:
        policy_of(policy, audit={"auditors": wanted})

    simulation = with_audits(Simulation().bend("policy", one_auditor), "parent", made)
    with_audits(simulation, "child", lambda run: [("Argus", run), ("Bellerophon", result_of(run, "b", detect="0.8"))])
    simulation.bends["policy"].append(lambda policy: policy["require"].pop() and None)  # steps-proven wants both, too
    report = simulation.verify()
    assert report.verdict == verdict
    if wanted == 2:
        assert "the policy asks for 2 different auditors; these audits are by Argus" in str(report.findings)


def test_two_identities_are_two_auditors() -> None:
    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return [(name, result_of(run, name, detect="0.8")) for name in ("Argus", "Bellerophon")]

    simulation = Simulation().bend("policy", lambda policy: policy_of(policy, audit={"auditors": 2}))
    for name in ("parent", "child"):
        with_audits(simulation, name, made)
    simulation.bends["policy"].append(lambda policy: policy["require"].pop() and None)
    assert simulation.verify().verdict == "PASS"


def test_a_mismatch_beside_the_challenge_is_denied_and_noted_where_it_is_left_out() -> None:
    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        chosen = run["challenge"]["chosen"]
        other = next(number for number in ("1", "2", "3", "4") if number not in chosen)
        return [("Argus", {**run, "extra": [{"unit_number": other, "outcome": "MISMATCH"}]})]

    report = judged(made)
    assert report.verdict == "DENY"
    assert "replay" in failed(report)


def test_a_unit_that_is_reported_twice_is_denied() -> None:
    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return [("Argus", {**run, "extra": [{"unit_number": "3", "outcome": "MATCH"}] * 2})]

    assert "replay" in failed(judged(made))


def all_of_it(run: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return result_of(run, "all", forged="0.01", detect="1", **fields)


def wants_two(made: Made, *, every_step: bool = False) -> Report:
    """The report under a policy that asks for two auditors; the parent's are honest."""
    simulation = Simulation(every_step=every_step)
    simulation.bend("policy", lambda policy: policy_of(policy, audit={"auditors": 2}))
    honest = ("Argus", "Bellerophon")
    with_audits(simulation, "parent", lambda run: [(name, result_of(run, name, detect="0.8")) for name in honest])
    with_audits(simulation, "child", made)
    return simulation.bend("policy", lambda policy: policy["require"].pop() and None).verify()


def one_unit_of_the_provers(run: dict[str, Any]) -> dict[str, Any]:
    return result_of(run, forged="1", detect="0.1", source="prover")


def test_an_auditor_who_replayed_one_unit_of_the_provers_choice_is_no_second_one() -> None:
    """A49: the first replayed everything; the second carries nothing of that."""
    report = wants_two(lambda run: [("Argus", all_of_it(run)), ("Bellerophon", one_unit_of_the_provers(run))])
    assert report.verdict == "INCOMPLETE"
    assert failed(report) == set()
    assert "the policy asks for 2 different auditors; these audits are by Argus'" in str(report.findings)


@pytest.mark.parametrize("source", ["verifier", "prover"])
def test_two_who_replayed_everything_or_whose_draw_counts_are_two(source: Any) -> None:
    """Whoever drew: who replayed every segment alone carries the coverage."""

    def second(run: dict[str, Any]) -> dict[str, Any]:
        return all_of_it(run, source=source) if source == "prover" else result_of(run, "small", detect="0.5")

    assert wants_two(lambda run: [("Argus", all_of_it(run)), ("Bellerophon", second(run))]).verdict == "PASS"


def test_points_that_a_second_auditor_computed_elsewhere_are_those_of_one() -> None:
    """Every step is proven, so one segment does not hold them all, whichever the prover's nonce draws."""

    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return [("Argus", all_of_it(run)), ("Bellerophon", one_unit_of_the_provers(run))]

    tie = [f for f in wants_two(made, every_step=True).findings if f.code == "points-tie"]
    assert [finding.status for finding in tie] == ["not_checked"]
    assert "more different auditors" in tie[0].detail


def test_coverage_says_how_much_of_it_accepted_auditors_say() -> None:
    simulation = Simulation()
    add = simulation.add_audit
    made_by = {"stranger": "auditor of nobody"}

    def add_audit(result: dict[str, Any], signer: str = "auditor") -> str:
        return add(result, made_by.get(result.pop("by", ""), signer))

    def also(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        every = [{"unit_number": str(number), "outcome": "MATCH"} for number in (1, 2, 3)]
        return [*results, {**results[0], "replays": every, "by": "stranger"}]

    simulation.add_audit = add_audit  # type: ignore[method-assign]
    simulation.bend("child.audits", also).bend("child.predicate", lambda p: p["coverage"].update(replayed="3"))
    found = {f.subject: f for f in simulation.verify().findings if f.code == "coverage"}
    child, parent = found["child: coverage"], found["parent: coverage"]
    assert child.detail == "3 of 3 segments replayed by its audits, 2 by accepted auditors, 2 steps proven"
    assert (child.status, child.level) == ("passed", "declared")
    assert (parent.detail, parent.level) == ("2 of 4 segments replayed, 0 steps proven", "proved")
