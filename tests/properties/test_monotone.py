"""Evidence is monotone: taking some away never makes a verdict better, junk never changes one.

Removing any line of claims.jsonl or any object never turns DENY or INCOMPLETE into PASS; removing one that a required
claim rests on ends PASS; junk lines and junk objects change nothing but the notes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opened_release import Opened, committed, image
from private_beacon import PrivateBeacon
from several_auditors import AUDITORS, inner_digests, policy_of, result_of, with_audits
from simulated_data import add_composition, add_inclusion, data_audit, see_through
from simulated_release import Simulation, judge, key, made_points, point, sign

from attest.bundle import ReleaseBundle
from attest.verdict.policy import Policy
from attest.verdict.report import Report
from attest.verdict.verify import verify
from pot.canonical import sha256_hex


def _drop_claim(predicate: dict[str, Any]) -> None:
    predicate["claims"] = predicate["claims"][:1]


def _mismatch(results: list[dict[str, Any]]) -> None:
    results[0]["replays"][0]["outcome"] = "MISMATCH"


def _inconclusive(results: list[dict[str, Any]]) -> None:
    results[0]["replays"][0]["outcome"] = "INCONCLUSIVE"


def _another_first_state(results: list[dict[str, Any]]) -> None:
    results[0].update(init="MISMATCH", init_detail="the regenerated initial state differs in: optimizer")


def _another_nonce(results: list[dict[str, Any]]) -> None:
    results[1]["seed_nonce"].update(nonce="77" * 32)


def _long(policy: dict[str, Any]) -> None:
    policy["limits"]["segment_steps"] = "1"


def _data(simulation: Simulation, *, of_licence: str = "MIT") -> None:
    """All claims about data, and a policy that requires them."""
    see_through(simulation)
    add_inclusion(simulation, ["child 1", "child 7"])
    add_composition(simulation, licences=("CC0-1.0", of_licence), only={"licence": ["CC0-1.0", "MIT"]})


def _data_mismatch(simulation: Simulation) -> None:
    _data(simulation)
    bad = data_audit(simulation.training["child"][0], outcome="MISMATCH", detail="ordered root")
    simulation.data_auditors.append(lambda name: [bad] if name == "child" else [])


def _data_unaudited(simulation: Simulation) -> None:
    _data(simulation)
    simulation.data_auditors.clear()


def _united(simulation: Simulation, detect: str = "0.5") -> None:
    """Three auditors whose draws are enough together, and who committed to what they saw inside."""

    def audits(name: str, detect: str) -> None:
        def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
            return [(auditor, _committed(simulation, result_of(run, auditor, detect=detect))) for auditor in AUDITORS]

        with_audits(simulation, name, made)

    audits("parent", detect)
    audits("child", "0.8")
    simulation.bend("policy", policy_of).bend("policy", lambda policy: policy["require"].pop() and None)


def _committed(simulation: Simulation, result: dict[str, Any]) -> dict[str, Any]:
    document = inner_digests(simulation, result)
    return {**result, "inner_commitment": simulation.put(document.to_bytes())}


def _independent(simulation: Simulation) -> None:
    """The policy asks for two auditors who agree inside a common segment; with three of four each, all meet."""
    _united(simulation, "1")
    simulation.bend("policy", lambda policy: policy.update(audit={"auditors": 3, "independent": True}))


def _contradicted(simulation: Simulation) -> None:
    """One of the three committed to other states."""
    _independent(simulation)

    def bend(results: list[dict[str, Any]]) -> None:
        document = inner_digests(simulation, results[1], secret="something else")
        results[1]["inner_commitment"] = simulation.put(document.to_bytes())

    simulation.bend("parent.audits", bend)


def _beacon(simulation: Simulation, number: int) -> None:
    """The parent's challenge was drawn by a beacon's round; the policy allows rounds from 10 on."""
    beacon = PrivateBeacon()
    info = beacon.info.model_dump(mode="json")
    pin = {"chain": beacon.info.chain_hash(), "not_before_round": "10", "info": info}
    simulation.bend("policy", lambda policy: policy_of(policy, challenge={"beacon": pin}))

    def made(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return [("Argus", result_of(run, detect="0.8", source="beacon", beacon=beacon.sign(number)))]

    with_audits(simulation, "parent", made)


AUDIT_WORLDS = {
    "united audits": _united,
    "independent audits": _independent,
    "contradicted audits": _contradicted,
    "a beacon's challenge": lambda simulation: _beacon(simulation, 10),
    "an old round's challenge": lambda simulation: _beacon(simulation, 9),
}
DATA_WORLDS = {
    **AUDIT_WORLDS,
    "claims about data": _data,
    "another licence": lambda simulation: _data(simulation, of_licence="GPL-3.0"),
    "a data audit with a mismatch": _data_mismatch,
    "no data audit": _data_unaudited,
}


def _on_x(simulation: Any) -> None:
    simulation.step_x = committed("exclusion", [image(100), image(5)])


def _sham_end(simulation: Simulation) -> None:
    """The last point is of another state than the released one."""

    def bend(events: list[dict[str, Any]]) -> None:
        last = next(event for event in reversed(events) if event["type"] == "step")
        last["points"]["after"] = point("a sham")

    simulation.bend("child.events", bend)


def _one_closed(simulation: Simulation) -> None:
    simulation.bend("step_exclusion", lambda claim: claim["steps"].pop() and None)


OPENED_WORLDS: dict[str, Any] = {
    "opened steps": lambda simulation: None,
    "opened steps on X": _on_x,
    "opened steps of a sham": _sham_end,
    "opened steps but one": _one_closed,
}
WORLDS: dict[str, Any] = {
    **dict.fromkeys(OPENED_WORLDS, ()),
    **dict.fromkeys(DATA_WORLDS, ()),
    "honest": (),
    "mismatch": (("parent.audits", _mismatch),),
    "inconclusive": (
        ("parent.audits", _inconclusive),
        ("parent.predicate", lambda p: p["coverage"].update(replayed="1")),
    ),
    "no claim of the parent": (("parent.predicate", _drop_claim),),
    "long segments": (("policy", _long),),
    "another first state": (("child.audits", _another_first_state),),
    "two nonces": (("child.audits", _another_nonce),),
    "a weight bit": (
        ("files", lambda files: {**files, "model.safetensors": files["model.safetensors"][:-1] + b"\x7e"}),
    ),
    "no pinned circuit": (("policy", lambda policy: policy["zk"].update(circuits=[])),),
}


PASSING = {"honest", "claims about data", "united audits", "independent audits", "a beacon's challenge", "opened steps"}


@cache
def world(name: str) -> tuple[ReleaseBundle, Policy, Report]:
    simulation = Opened().alone() if name in OPENED_WORLDS else Simulation()
    if name in OPENED_WORLDS:
        OPENED_WORLDS[name](simulation)
    if name in DATA_WORLDS:
        DATA_WORLDS[name](simulation)
    for stage, change in WORLDS[name]:
        simulation.bend(stage, change)
    release, policy = simulation.release(), simulation.policy()
    return release, policy, judged(release, policy)


def judged(release: ReleaseBundle, policy: Policy) -> Report:
    return verify(release, policy, step_verifier=judge, point_maker=made_points)


def conclusion(report: Report) -> Any:
    """The report without time and notes."""
    return report.model_copy(update={"time": None, "notes": []})


def without(release: ReleaseBundle, lines: set[int], objects: set[str]) -> ReleaseBundle:
    return replace(
        release,
        lines=tuple(line for number, line in enumerate(release.lines) if number not in lines),
        objects={name: data for name, data in release.objects.items() if name not in objects},
    )


def test_the_worlds_are_as_their_names_say() -> None:
    assert {name: world(name)[2].verdict for name in WORLDS} == {
        "honest": "PASS",
        "mismatch": "DENY",
        "inconclusive": "INCOMPLETE",
        "no claim of the parent": "DENY",
        "long segments": "DENY",
        "another first state": "DENY",
        "two nonces": "DENY",
        "a weight bit": "DENY",
        "no pinned circuit": "INCOMPLETE",
        "claims about data": "PASS",
        "another licence": "DENY",
        "a data audit with a mismatch": "DENY",
        "no data audit": "INCOMPLETE",
        "united audits": "PASS",
        "independent audits": "PASS",
        "contradicted audits": "DENY",
        "a beacon's challenge": "PASS",
        "an old round's challenge": "INCOMPLETE",
        "opened steps": "PASS",
        "opened steps on X": "DENY",
        "opened steps of a sham": "DENY",
        "opened steps but one": "INCOMPLETE",
    }


@pytest.mark.parametrize("name", WORLDS)
def test_removing_any_one_thing_never_makes_it_pass(name: str) -> None:
    release, policy, report = world(name)
    cases = [({number}, set()) for number in range(len(release.lines))]
    cases += [(set(), {sha256}) for sha256 in release.objects]
    for lines, objects in cases:
        verdict = judged(without(release, lines, objects), policy).verdict
        assert report.verdict == "PASS" or verdict != "PASS", (lines, objects)


@pytest.mark.parametrize("name", ["honest", "claims about data", "a beacon's challenge", "opened steps"])
def test_everything_in_the_honest_bundle_is_needed(name: str) -> None:
    """The policy requires all claims, so each line and each object ends PASS when it goes."""
    release, policy, _ = world(name)
    for number in range(len(release.lines)):
        assert judged(without(release, {number}, set()), policy).verdict in ("INCOMPLETE", "DENY"), number
    for sha256 in release.objects:
        assert judged(without(release, set(), {sha256}), policy).verdict == "INCOMPLETE", sha256


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(set(WORLDS) - PASSING)), data=st.data())
def test_removing_any_set_of_things_never_makes_it_pass(name: str, data: st.DataObject) -> None:
    release, policy, _ = world(name)
    lines = data.draw(st.sets(st.integers(0, len(release.lines) - 1)))
    objects = data.draw(st.sets(st.sampled_from(sorted(release.objects))))
    assert judged(without(release, lines, objects), policy).verdict != "PASS"


def _foreign(statement: dict[str, Any]) -> bytes:
    return sign(statement, key("mallory"))


JUNK = st.one_of(
    st.binary(max_size=200).map(lambda data: data.replace(b"\n", b"")),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace").replace(b"\n", b"")),
    st.sampled_from(
        [
            b"{}",
            b"[]",
            b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}',
            _foreign({"_type": "https://in-toto.io/Statement/v1"}),
            _foreign({}),
        ]
    ),
    st.integers(0, 4).map(lambda number: world("mismatch")[0].lines[number] + b" "),
    st.integers(0, 4).map(lambda number: world("honest")[0].lines[number][:-3]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(WORLDS)), junk=st.lists(JUNK, min_size=1, max_size=4), data=st.data())
def test_junk_changes_nothing_but_the_notes(name: str, junk: list[bytes], data: st.DataObject) -> None:
    release, policy, report = world(name)
    foreign = [line for line in junk if line.rstrip() not in world("mismatch")[0].lines]
    lines = list(release.lines)
    for line in foreign:
        lines.insert(data.draw(st.integers(0, len(lines))), line)
    objects = {**release.objects, **{sha256_hex(line): line for line in junk}, "0" * 64: b"not zero"}
    after = judged(replace(release, lines=tuple(lines), objects=objects), policy)
    expected, found = conclusion(report), conclusion(after)
    assert found.verdict == expected.verdict
    assert found.reason == expected.reason
    assert [f for f in found.findings if f.code != "release-bundle"] == [
        f for f in expected.findings if f.code != "release-bundle"
    ]
    assert found.claims == expected.claims


def test_somebody_elses_certificate_for_the_same_files_changes_nothing() -> None:
    release, policy, report = world("honest")
    other, _, _ = world("mismatch")
    mallory = Simulation()
    mallory.signers = {"parent": "mallory", "child": "mallory"}
    lines = (*mallory.release().lines, *release.lines)
    assert judged(replace(release, lines=lines), policy).verdict == report.verdict == "PASS"
    # and one that an accepted developer signed for an earlier, worse run does not hide the good one
    both = replace(release, lines=(*other.lines, *release.lines), objects={**other.objects, **release.objects})
    assert judged(both, policy).verdict == "PASS"


def test_the_order_of_lines_does_not_matter() -> None:
    release, policy, report = world("honest")
    backwards = judged(replace(release, lines=tuple(reversed(release.lines))), policy)
    assert conclusion(backwards) == conclusion(report)
