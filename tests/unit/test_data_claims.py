"""Claims about data in an honest release: other views, hidden leaves, inclusions, compositions, data audits."""

from __future__ import annotations

from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from simulated_data import (
    add_composition,
    add_inclusion,
    claim_of,
    data_audit,
    in_view,
    names_of,
    pin_of,
    see_through,
)
from simulated_release import Simulation, failed, unchecked

from attest.export.page import render_page
from attest.export.text import MAX_GROUP_LINES, render_text
from attest.verdict.inclusion import least_uses
from attest.verdict.report import MAX_GROUPS, ReportedComposition, ReportedGroup
from attest.verdict.sentences import EXCLUSIONS, INCLUSIONS, exclusion_sentence
from attest.verdict.sets import field_words, united_fields
from pot.commitments.dataset import GRAM_VIEWS, Reading
from pot.commitments.hiding import Hiding
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.data.views import VIEWS
from pot.recording.precommit import Precommit

KEY = Hiding(method="blake3-keyed/1", id="ab" * 32)


def not_shown(report: object) -> set[str]:
    return {item.code for item in report.not_shown}  # type: ignore[attr-defined]


def test_the_sentences_are_those_of_the_views() -> None:
    assert {view.name: view.sentence for view in VIEWS.values()} == EXCLUSIONS
    assert set(INCLUSIONS) == set(VIEWS) - GRAM_VIEWS
    assert "seen through new/1" in exclusion_sentence("new/1")


def test_another_view_of_the_same_files_passes_with_its_sentence() -> None:
    simulation = Simulation()
    see_through(simulation)
    report = simulation.verify()
    assert (report.verdict, failed(report), unchecked(report)) == ("PASS", set(), set())
    claim = claim_of(report, "dataset-exclusion", "other")
    assert claim.level == "audited"
    assert claim.sentence == EXCLUSIONS["winnow50/1"]
    assert {link.code: link.level for link in claim.links}.items() >= {
        "same-shards": "proved", "view-tie": "audited", "exclusion-training": "proved",
    }.items()  # fmt: skip
    assert claim.sentence in render_text(report)
    assert claim.sentence in render_page(report)


def test_what_is_proven_against_the_own_commitment_needs_no_view_tie() -> None:
    simulation = Simulation()
    see_through(simulation)
    codes = {link.code for link in claim_of(simulation.verify(), "dataset-exclusion", "x1").links}
    assert not codes & {"same-shards", "view-tie"}


def test_another_view_that_nobody_made_again_is_only_declared() -> None:
    simulation = Simulation()
    see_through(simulation, level="declared").audited.clear()
    report = simulation.verify()
    assert report.verdict == "PASS"
    claim = claim_of(report, "dataset-exclusion", "other")
    assert (claim.status, claim.level) == ("passed", "declared")
    assert next(link for link in claim.links if link.code == "view-tie").status == "not_checked"
    assert claim_of(report, "dataset-exclusion", "x1").level == "audited"


def test_declared_is_not_enough_for_a_policy_that_asks_for_more() -> None:
    simulation = Simulation()
    see_through(simulation, level="committed").audited.clear()
    report = simulation.verify()
    assert (report.verdict, unchecked(report)) == ("INCOMPLETE", {"requirement"})
    assert "only declared: its weakest link is view-tie" in report.reason


def test_a_field_of_another_name_is_said_and_must_be_accepted() -> None:
    reading = Reading(fields={"text": "content"})
    simulation = Simulation()
    seen = see_through(simulation, reading=reading)
    report = simulation.verify()
    assert (report.verdict, unchecked(report)) == ("INCOMPLETE", {"requirement"})
    assert "about the field content, which the policy does not accept" in report.reason
    claim = claim_of(report, "dataset-exclusion", "other")
    assert claim.exclusion is not None
    assert claim.exclusion.field == "content"
    assert "field content" in claim.sentence
    wanted = {
        "claim": "dataset-exclusion",
        "level": "audited",
        "exclusion": {**pin_of(seen.x.commitment), "field": "content"},
    }
    simulation.bend("policy", lambda policy: policy["require"].__setitem__(-1, wanted))
    assert simulation.verify().verdict == "PASS"


def test_a_field_of_an_ancestor_is_one_of_the_claim() -> None:
    """The child read the view's own field, the parent another: over the lineage the claim is about both."""
    simulation = Simulation()
    seen = see_through(simulation)
    seen.training["parent"] = in_view("training", names_of("parent"), reading=Reading(fields={"text": "title"}))
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"
    named = claim_of(report, "dataset-exclusion", "other").exclusion
    assert named is not None
    assert named.field == "title"


def test_field_names_become_one_text_that_no_others_give() -> None:
    assert field_words([]) is None
    assert field_words(["content"]) == "content"
    assert field_words(["b", "a"]) == '["a", "b"]'
    texts = [field_words(names) for names in (["a, b"], ["a", "b"], ['["a", "b"]'], ["a\u200b"], ["a"])]
    assert len(set(texts)) == len(texts)
    assert all(text is not None and text.isascii() for text in texts)
    assert united_fields([None, "a"]) == "a"
    assert united_fields(["a", '["b", "c"]', None]) == '["a", "b", "c"]'
    long = field_words(["x" * 256, "y" * 256, "z" * 256])
    assert long is not None
    assert long.startswith("sha256:")
    assert united_fields([long, long]) == long


def test_records_that_could_not_be_read_are_said() -> None:
    simulation = Simulation()
    reading = Reading(skipped="3", cut="1")
    for name in ("parent", "child"):
        names = names_of(name)
        commitment = in_view("training", names, "pixels/1", reading=reading).commitment
        simulation.training[name] = (commitment, bytes(in_view("training", names, "pixels/1").listing))
    report = simulation.verify()
    assert (report.verdict, failed(report)) == ("PASS", set())
    link = next(k for k in claim_of(report, "dataset-exclusion", "x1").links if k.code == "exclusion-training")
    assert "3 records and the rest of 1 files could not be read and are not covered" in link.detail
    assert "records-left-out" in not_shown(report)
    assert "records-left-out" not in not_shown(Simulation().verify())
    see_through(simulation, reading=reading)  # as many were left out, but which?
    assert simulation.verify().verdict == "DENY"


def test_hidden_leaves_are_said_and_must_be_pinned() -> None:
    simulation = Simulation()
    seen = see_through(simulation, "text/1", hiding=KEY)
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"  # the pin names no key
    assert "under the trainer's key" in claim_of(report, "dataset-exclusion", "other").sentence
    pin = {**pin_of(seen.x.commitment), "hiding": KEY.model_dump()}
    simulation.bend("policy", lambda policy: policy["require"][-1].update(exclusion=pin))
    report = simulation.verify()
    assert report.verdict == "PASS"
    assert KEY.id[:16] in render_text(report)
    assert KEY.id in render_page(report)


def test_an_inclusion_passes_and_says_what_it_shows() -> None:
    simulation = Simulation()
    y = add_inclusion(simulation, ["child 3", "child 1", "child 3"])
    report = simulation.verify()
    assert (report.verdict, failed(report)) == ("PASS", set())
    claim = claim_of(report, "dataset-inclusion")
    assert claim.level == "audited"
    assert claim.inclusion is not None
    assert claim.inclusion.root_blake3 == y.commitment.records.root_blake3
    assert {link.code: link.level for link in claim.links}.items() >= {
        "inclusion-set": "proved", "membership": "proved", "inclusion-used": "proved", "records-tie": "audited",
    }.items()  # fmt: skip
    assert "lineage-claim" not in {link.code for link in claim.links}
    for shown in (render_text(report), unescape(render_page(report))):
        assert INCLUSIONS["pixels/1"] in shown


def test_an_inclusion_that_nobody_claims_is_not_there() -> None:
    simulation = Simulation()
    add_inclusion(simulation, ["child 3"])
    simulation.claimants.clear()
    report = simulation.verify()
    assert (report.verdict, unchecked(report)) == ("INCOMPLETE", {"requirement"})


def precommit_of(simulation: Simulation, name: str) -> Precommit:
    simulation.release()
    return Precommit.from_value(simulation.models[name].precommit, what="precommit")


@pytest.mark.parametrize("batch", [5, 8, 32])
@pytest.mark.parametrize("steps", [1, 4, 6, 13])
def test_uses_are_those_of_the_batches(batch: int, steps: int) -> None:
    """Against the batches themselves, one after the other."""
    precommit = precommit_of(Simulation(), "child")
    order = precommit.order.model_copy(update={"batch": str(batch)})
    precommit = precommit.model_copy(update={"order": order, "steps": str(steps)})
    seed = run_seed("ab" * 32, bytes(32))
    counts = np.zeros(32, int)
    for step in range(1, steps + 1):
        counts[batch_records(seed, 32, batch, step)[2]] += 1
    for records in ({3}, {0, 9, 31}, set(range(32))):
        mine = counts[sorted(records)]
        assert least_uses(seed, precommit, records) == (int((mine == 0).sum()), int(mine.min()))


def test_a_composition_passes_and_lists_its_groups() -> None:
    simulation = Simulation()
    add_composition(simulation, only={"licence": ["MIT", "CC0-1.0", "unused"]})
    report = simulation.verify()
    assert (report.verdict, failed(report)) == ("PASS", set())
    claim = claim_of(report, "data-composition")
    assert (claim.level, claim.name) == ("audited", "records")
    assert claim.composition is not None
    assert [(group.labels, group.records) for group in claim.composition.groups] == [
        (["CC0-1.0"], "16"),
        (["MIT"], "16"),
    ]
    assert "as committed" in claim.sentence
    assert "label-truth" in not_shown(report)
    assert "lineage-claim" not in {link.code for link in claim.links}
    assert "MIT: 16 records" in render_text(report)
    assert ">MIT</td>" in render_page(report)


def test_a_composition_that_nobody_made_again_is_only_declared() -> None:
    simulation = Simulation()
    add_composition(simulation, audited=False)
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"
    assert "dataset records: only declared: its weakest link is composition-tie" in report.reason


def test_a_composition_by_other_labels_does_not_answer() -> None:
    simulation = Simulation()
    add_composition(simulation, only={"source": ["web"]})
    report = simulation.verify()
    assert (report.verdict, failed(report)) == ("INCOMPLETE", set())
    assert "no claim of this kind by source for dataset records" in report.reason


def test_long_compositions_are_cut_and_say_so() -> None:
    simulation = Simulation()
    add_composition(simulation)
    report = simulation.verify()
    place = report.claims.index(claim_of(report, "data-composition"))
    group = ReportedGroup(labels=["a"], records="1", bytes="1")
    long = ReportedComposition(
        composition_sha256="ab" * 32, dataset="d", by=["x"], groups=[group] * MAX_GROUPS, left_out="7", totals=group
    )
    claims = list(report.claims)
    claims[place] = claims[place].model_copy(update={"composition": long})
    text = render_text(report.model_copy(update={"claims": claims}))
    assert f"{MAX_GROUPS - MAX_GROUP_LINES + 7} more groups" in text
    assert text.count("a: 1 records") == MAX_GROUP_LINES + 1


def test_a_data_audit_ties_set_and_order_as_well_as_one_of_the_run() -> None:
    simulation = Simulation()
    for name in ("parent", "child"):
        simulation.bend(f"{name}.audits", lambda results: [result.update(datasets=[]) for result in results] and None)
    assert simulation.verify().verdict == "INCOMPLETE"
    simulation.data_auditors.append(lambda name: [data_audit(simulation.training[name][0], "digests")])
    report = simulation.verify()
    assert report.verdict == "PASS"
    link = next(k for k in claim_of(report, "dataset-exclusion").links if k.code == "records-tie")
    assert link.detail == "Argus recomputed both roots from the record digests"


def test_the_digests_alone_do_not_tie_another_view() -> None:
    simulation = Simulation()
    seen = see_through(simulation)
    seen.audited.clear()
    simulation.data_auditors.append(lambda name: [data_audit(seen.training[name].commitment, "digests")])
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"
    assert claim_of(report, "dataset-exclusion", "other").level == "declared"


def test_without_its_evidence_no_claim_about_data_passes() -> None:
    """Everything that the claims refer to is taken away once, one after the other."""
    from simulated_release import judge

    from attest.verdict.verify import verify

    simulation = Simulation()
    see_through(simulation)
    add_inclusion(simulation, ["child 3"])
    add_composition(simulation, only={"licence": ["MIT", "CC0-1.0"]})
    release, policy = simulation.release(), simulation.policy()
    assert verify(release, policy, step_verifier=judge).verdict == "PASS"
    for sha256 in release.objects:
        left = {name: data for name, data in release.objects.items() if name != sha256}
        report = verify(replace(release, objects=left), policy, step_verifier=judge)
        assert (report.verdict, failed(report)) == ("INCOMPLETE", set()), sha256
    for number in range(len(release.lines)):
        lines = release.lines[:number] + release.lines[number + 1 :]
        assert verify(replace(release, lines=lines), policy, step_verifier=judge).verdict != "PASS"


def test_labels_and_fields_cannot_lie_to_their_reader() -> None:
    simulation = Simulation()
    evil = "<script>alert(1)</script>\u202e\x1b[2J{{7*7}}"
    add_composition(simulation, licences=("MIT", evil), level=None)
    see_through(simulation, reading=Reading(fields={"text": evil}), level=None)
    report = simulation.verify()
    assert report.verdict == "PASS"
    for shown in (render_text(report), render_page(report), report.to_bytes().decode()):
        assert "alert(1)" in shown
        assert not set("\u202e\x1b") & set(shown)
    assert "<script>" not in render_page(report)
    named = claim_of(report, "dataset-exclusion", "other").exclusion
    assert named is not None
    assert named.field != evil
