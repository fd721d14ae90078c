"""What verdicts say about gaps, streams, screening and tolerances: seen, named, and never worth a level."""

from __future__ import annotations

from typing import Any

import pytest
from several_auditors import policy_of, result_of, with_audits
from simulated_data import add_inclusion
from simulated_release import Simulation, failed, unchecked

from attest.verdict.report import Report


def details(report: Report, code: str, about: str = "parent") -> list[tuple[str, str]]:
    return [(f.status, f.detail) for f in report.findings if f.code == code and f.subject.startswith(about)]


def level(report: Report, claim: str) -> set[str]:
    return {item.level for item in report.claims if item.type == claim}


# gaps ----------------------------------------------------------------------------------------------------------------


def with_gap(**policy: Any) -> Report:
    """The parent's checkpoint of step 4 has no files: segments 1-2, 3-6, 7-8."""

    def gap(events: list[dict[str, Any]]) -> None:
        at = next(n for n, e in enumerate(events) if e["type"] == "checkpoint" and e["step"] == "4")
        events[at]["files"] = []
        events.insert(at, {"type": "gap", "step": "4", "missing": "state", "reason": "disk full"})

    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        shorter = {**run, "challenge": {**run["challenge"], "population": "3"}}
        return [("Argus", result_of(shorter, forged="0.3", detect="0.8"))]  # half of the steps is one segment

    simulation = Simulation().bend("parent.events", gap).bend("policy", lambda value: policy_of(value, **policy))
    with_audits(simulation, "parent", made)
    return simulation.bend("parent.predicate", lambda value: value["coverage"].update(population="3")).verify()


def test_without_gaps_it_says_so() -> None:
    assert details(Simulation().verify(), "gap") == [("passed", "no checkpoint lacks the files that were promised")]


def test_a_gap_is_named_and_blocks_nothing() -> None:
    report = with_gap(limits={"segment_steps": 4})
    assert report.verdict == "PASS"
    assert details(report, "gap") == [
        ("not_checked", "checkpoints without the files that were promised: steps 4; first reason: disk full")
    ]
    assert level(report, "dataset-exclusion") == {"audited"}


def test_a_gap_makes_a_segment_longer_than_the_policy_allows() -> None:
    """Gaps are no way around the limit: what lies over one is a single segment."""
    report = with_gap()
    assert report.verdict == "DENY"
    assert failed(report) == {"segment-length"}


# how much was drawn ---------------------------------------------------------------------------------------------------


def one_forged(bend: Any) -> str:
    """What the child's timeline says of one forged segment among six; `bend` changes the audit of segments."""
    simulation = Simulation()
    simulation.steps["child"] = 12
    simulation.bend("child.audits", lambda results: results.__delitem__(slice(1, None)) or bend(results[0]))
    report = simulation.verify()
    return next(line.detection.one_forged for line in report.timelines if line.steps == "12")


def all_but_one(result: dict[str, Any]) -> list[dict[str, str]]:
    left = [number for number in range(1, 7) if str(number) not in result["challenge"]["chosen"]]
    return [{"unit_number": str(number), "outcome": "MATCH"} for number in left[:-1]]


def test_segments_beside_the_draw_do_not_make_a_forged_one_likelier_to_be_met() -> None:
    """A prover can make decoys look suspicious: what is replayed because of it was not drawn."""
    alone = one_forged(lambda result: None)
    assert "33.33 %" in alone
    assert one_forged(lambda result: result.update(extra=all_but_one(result))) == alone


def test_a_draw_of_the_provers_meets_nothing() -> None:
    def own(result: dict[str, Any]) -> None:
        result.update(result_of(result, forged="0.2", detect="0.8", source="prover"))

    assert " 0.00 %" in one_forged(own)


def test_where_every_segment_was_replayed_nothing_is_left_to_a_draw() -> None:
    def every(result: dict[str, Any]) -> None:
        result.update(result_of(result, forged="0.1", detect="1", source="prover"))

    assert one_forged(every) == "every segment was replayed"


# streams -------------------------------------------------------------------------------------------------------------


def stream(level: str = "committed") -> Simulation:
    def method(precommit: dict[str, Any]) -> None:
        precommit["order"]["method"] = "stream/1"

    def require(policy: dict[str, Any]) -> None:
        for item in policy["require"][:2]:
            item["level"] = level

    return Simulation().bend("parent.precommit", method).bend("policy", require)


def test_claims_about_a_streams_data_are_committed() -> None:
    report = stream().verify()
    assert report.verdict == "PASS"
    assert [status for status, _ in details(report, "stream-order")] == ["not_checked"]
    assert details(report, "order") == []
    assert details(report, "order", "child")[0][0] == "passed"
    assert level(report, "dataset-exclusion") == level(report, "training-provenance") == {"committed"}
    assert "order-not-fixed" in {item.code for item in report.not_shown}


def test_a_policy_that_wants_more_is_not_met() -> None:
    report = stream("audited").verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}


def test_a_stream_that_jumps_is_denied() -> None:
    def jump(events: list[dict[str, Any]]) -> None:
        next(event for event in events if event.get("step") == "3" and event["type"] == "step")["position"] = "40"

    report = stream().bend("parent.events", jump).verify()
    assert report.verdict == "DENY"
    assert "order" in failed(report) or "chain" in failed(report)


def test_an_inclusion_in_a_stream_shows_no_use() -> None:
    simulation = Simulation()
    add_inclusion(simulation, ["child 1", "child 7"])
    assert simulation.verify().verdict == "PASS"
    simulation.bend("child.precommit", lambda value: value["order"].update(method="stream/1"))
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"
    found = [f for f in report.findings if f.code == "inclusion-used"]
    assert [f.status for f in found] == ["not_checked"]
    assert "no seed fixes which records a stream yields" in found[0].detail


# screening and tolerance ---------------------------------------------------------------------------------------------


def screening(*suspicious: str, flagged: int | None = None, unread: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "version": "pot/screening/v1",
        "thresholds": "1",
        "segments": "4",
        "flagged": str(len(suspicious) if flagged is None else flagged),
        "suspicious": list(suspicious),
        "details": [],
        "unread": list(unread),
    }


def audited(**fields: Any) -> Report:
    """The parent's honest audit, of two of its four segments, with these fields."""
    simulation = Simulation()
    simulation.bend("parent.audits", lambda results: results[0].update(fields))
    return simulation.verify()


def drawn() -> list[str]:
    found: list[str] = []
    Simulation().bend("parent.audits", lambda results: found.extend(results[0]["challenge"]["chosen"])).verify()
    return found


def test_an_audit_that_did_not_screen_says_nothing_of_it() -> None:
    assert details(Simulation().verify(), "screening") == []


def test_segments_that_all_look_like_training() -> None:
    report = audited(screening=screening(unread=("losses",)))
    assert report.verdict == "PASS"
    [(status, detail)] = details(report, "screening")
    assert status == "passed"
    assert detail.startswith("4 segments look like training")
    assert detail.endswith("not readable in some segments: losses")


def test_suspicious_segments_that_nobody_replayed_are_named() -> None:
    left = [number for number in ("1", "2", "3", "4") if number not in drawn()]
    report = audited(screening=screening(*left, *drawn()[:1]))
    assert report.verdict == "PASS"  # a mark is no lie
    assert details(report, "screening") == [
        (
            "not_checked",
            f"Argus finds segments {', '.join(left)} unlike training, and no accepted auditor replayed them",
        )
    ]


def test_suspicious_segments_that_were_replayed_and_match() -> None:
    left = [number for number in ("1", "2", "3", "4") if number not in drawn()]
    extra = [{"unit_number": number, "outcome": "MATCH"} for number in left]
    report = audited(screening=screening(*left), extra=extra)
    assert details(report, "screening") == [
        (
            "passed",
            f"segments {', '.join(left)} looked unlike training; accepted auditors replayed them, and they match",
        )
    ]
    for outcome in ("INCONCLUSIVE", "TIMEOUT", "REFUSED"):
        open_ones = [{**unit, "outcome": outcome} for unit in extra]
        assert details(audited(screening=screening(*left), extra=open_ones), "screening")[0][0] == "not_checked"


def tolerance(within: bool = True, usable: bool = True, flagged: bool = False, count: int = 1) -> dict[str, Any]:
    one = {"tolerance": "0.001", "within": within, "usable": usable}
    return {
        "version": "pot/tolerance/v1",
        "noise_from": "1 and 2 threads",
        "segments": [{"segment": str(number + 1), **one} for number in range(count)],
        "drift": "0.0",
        "budget": "0.0",
        "signs": "0",
        "same": "0",
        "sign_p": "1.0",
        "flagged": flagged,
    }


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (tolerance(), "passed", "segments 1: within the noise of Argus's machine; no match"),
        (tolerance(within=False), "not_checked", "segments 1: too far"),
        (tolerance(usable=False), "not_checked", "could not tell a forgery"),
        (tolerance(flagged=True), "not_checked", "one way all along"),
        (tolerance(count=0), "not_checked", "no segment was measured"),
    ],
)
def test_tolerances_are_told_and_lift_nothing(given: dict[str, Any], status: str, words: str) -> None:
    def inconclusive(results: list[dict[str, Any]]) -> None:
        results[0].update(tolerance=given)
        results[0]["replays"][0]["outcome"] = "INCONCLUSIVE"

    simulation = Simulation().bend("parent.audits", inconclusive)
    report = simulation.bend("parent.predicate", lambda value: value["coverage"].update(replayed="1")).verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}
    assert level(report, "dataset-exclusion") == {"committed"}
    [(found, detail)] = details(report, "replay-tolerance")
    assert found == status
    assert words in detail
