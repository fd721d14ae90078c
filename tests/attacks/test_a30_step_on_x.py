"""A30, step by step: a run that trained on X, presented as one whose proven steps left X out.

Every step proof holds. The forger lies about what their batches were: about the records, their places, or what of a
record X's view sees. Each forgery is first shown to pass where the one check that stops it is left out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from opened_release import Opened, committed, image
from simulated_release import failed, made_points, unchecked

from attest.verdict import step_exclusion
from attest.verdict.report import ClaimReport, Report
from pot.canonical import canonical_bytes, parse
from pot.commitments.merkle_verify import ProofRefused
from pot.zk import opening_verify

Change = Callable[[dict[str, Any]], None]


def absence(report: Report) -> ClaimReport:
    return next(claim for claim in report.claims if claim.type == "step-exclusion")


def changed(opening: dict[str, Any], change: Callable[[dict[str, Any]], None], at: int = 0) -> None:
    record = parse(base64.b64decode(opening["records"][at]["record_base64"]), what="record")
    change(record)
    opening["records"][at]["record_base64"] = base64.b64encode(canonical_bytes(record)).decode()


def first_step(change: Change) -> Change:
    """The change, of the opening of step 1 only."""
    return lambda opening: change(opening) if opening["step"] == "1" else None


def test_opened_batches_without_x_are_proved_without_any_auditor() -> None:
    report = Opened().alone().verify()
    claim = absence(report)
    assert (report.verdict, claim.status, claim.level, claim.every_step) == ("PASS", "passed", "proved", True)
    assert claim.sentence == (
        "no record of X has the same image as a record that any step of this run read, pixel for pixel; of a record the"
        " steps also read label, which pixels/1 does not see"
    )


def test_a_step_that_read_a_record_of_x_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Opened().alone()
    simulation.step_x = committed("exclusion", [image(100), image(5)])
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"step-absence"}
    monkeypatch.setattr(opening_verify, "seen_through", lambda *_: b"")
    assert simulation.verify().verdict == "PASS"


def test_a_batch_of_x_behind_the_point_of_other_records_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step was made and proven on an image of X; the opening shows the committed records."""

    def on_x(events: list[dict[str, Any]]) -> None:
        first = next(event for event in events if event["type"] == "step")
        vectors = simulation.batch_vectors(1, [image(number) for number in range(100, 108)])
        first["points"]["batch"] = "".join(made_points(None, vectors))

    simulation = Opened().alone().bend("child.events", on_x)
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"batch-opening"}

    def believe(case: Any, code: str, kit: Any, points: Any, wanted: Any) -> set[str]:
        return {subject for subject, _, _ in wanted}

    monkeypatch.setattr(step_exclusion, "same_points", believe)
    assert simulation.verify().verdict == "PASS"


def test_a_batch_of_records_that_are_not_in_the_data_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 1 was made on foreign images, which its opening shows; they are in no X that anybody thought of."""
    simulation = Opened().alone()

    def foreign(events: list[dict[str, Any]]) -> None:
        first = next(event for event in events if event["type"] == "step")
        records = [{name: image(200 + at)[name] for name in ("image", "label")} for at in range(8)]
        first["points"]["batch"] = "".join(made_points(None, simulation.batch_vectors(1, records)))

    def shown(opening: dict[str, Any]) -> None:
        for at in range(8):
            value = {name: image(200 + at)[name] for name in ("image", "label")}
            opening["records"][at]["record_base64"] = base64.b64encode(canonical_bytes(value)).decode()

    simulation.bend("child.events", foreign).bend("batch_opening", first_step(shown))
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"batch-opening"}
    monkeypatch.setattr(opening_verify, "verify_inclusion", lambda *_: None)
    assert simulation.verify().verdict == "PASS"


def test_committed_records_of_another_place_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 1 was made on step 2's records, a second time: those that seed and order gave it are left out."""
    simulation = Opened().alone()
    other: dict[str, Any] = {}

    def twice(events: list[dict[str, Any]]) -> None:
        first, second = [event for event in events if event["type"] == "step"][:2]
        other["records"] = simulation.asked[second["step"]]
        vectors = simulation.batch_vectors(1, [simulation.records[number] for number in other["records"]])
        first["points"]["batch"] = "".join(made_points(None, vectors))

    def shown(opening: dict[str, Any]) -> None:
        opening["records"] = [simulation.record_of(number) for number in other["records"]]

    simulation.bend("child.events", twice).bend("batch_opening", first_step(shown))
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"batch-opening"}
    real = step_exclusion._indices
    monkeypatch.setattr(step_exclusion, "_indices", lambda case, step: real(case, 2 if step == 1 else step))
    assert simulation.verify().verdict == "PASS"


def other_label(opening: dict[str, Any]) -> None:
    """pixels/1 does not see labels, but the step read them."""
    changed(opening, lambda record: record.update(label=(record["label"] + 1) % 3))


def other_pixels(opening: dict[str, Any]) -> None:
    changed(opening, lambda record: record["image"].reverse())


def a_record_less(opening: dict[str, Any]) -> None:
    del opening["records"][-1]


def a_record_more(opening: dict[str, Any]) -> None:
    opening["records"].append(opening["records"][0])


def another_order(opening: dict[str, Any]) -> None:
    opening["records"].reverse()


def a_field_that_nothing_binds(opening: dict[str, Any]) -> None:
    changed(opening, lambda record: record.update(licence="CC0"))


def a_field_less(opening: dict[str, Any]) -> None:
    changed(opening, lambda record: record.pop("label"))


def no_object(opening: dict[str, Any]) -> None:
    opening["records"][0]["record_base64"] = base64.b64encode(b"[1]").decode()


def not_canonical(opening: dict[str, Any]) -> None:
    raw = base64.b64decode(opening["records"][0]["record_base64"])
    opening["records"][0]["record_base64"] = base64.b64encode(raw + b" ").decode()


def not_base64(opening: dict[str, Any]) -> None:
    opening["records"][0]["record_base64"] = "!!"


def a_shorter_path(opening: dict[str, Any]) -> None:
    del opening["records"][0]["path"][-1]


def other_step(opening: dict[str, Any]) -> None:
    opening["step"] = "2"


def other_run(opening: dict[str, Any]) -> None:
    opening["precommit_sha256"] = "ab" * 32


def other_circuit(opening: dict[str, Any]) -> None:
    opening["circuit_sha256"] = "ab" * 32


def other_blinds(opening: dict[str, Any]) -> None:
    opening["blinds"] = ["01" + opening["blinds"][0][2:]]


@pytest.mark.parametrize(
    "change",
    [
        other_label, other_pixels, a_record_less, a_record_more, another_order, a_field_that_nothing_binds,
        a_field_less, no_object, not_canonical, not_base64, a_shorter_path, other_step, other_run, other_circuit,
        other_blinds,
    ],
)  # fmt: skip
def test_an_opening_that_is_not_the_batchs_is_denied(change: Change) -> None:
    report = Opened().alone().bend("batch_opening", first_step(change)).verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"batch-opening"}


def test_without_its_check_a_field_that_nothing_binds_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening_verify, "check_fields", lambda *_: None)
    simulation = Opened().alone().bend("batch_opening", first_step(a_field_that_nothing_binds))
    assert simulation.verify().verdict == "PASS"


def repeated(claim: dict[str, Any]) -> None:
    claim["steps"][1] = claim["steps"][0]


def not_proven(claim: dict[str, Any]) -> None:
    claim["circuit_sha256"] = "ab" * 32


def beyond_the_run(claim: dict[str, Any]) -> None:
    claim["steps"][0]["step"] = "99"


@pytest.mark.parametrize("change", [repeated, not_proven, beyond_the_run])
def test_steps_that_the_certificate_does_not_prove_are_denied(change: Change) -> None:
    report = Opened().alone().bend("step_exclusion", change).verify()
    assert report.verdict == "DENY"
    assert "batch-opening" in failed(report)


def test_a_step_whose_batch_stays_closed_is_no_step_of_the_claim() -> None:
    """The forger leaves out the one step that read X; the claim is then about five steps, and says so."""
    simulation = Opened().alone().bend("step_exclusion", lambda claim: claim["steps"].pop(2) and None)
    report = simulation.verify()
    claim = absence(report)
    assert (claim.status, claim.level, claim.every_step) == ("passed", "proved", False)
    assert "the 5 listed steps of 6 read" in claim.sentence
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}
    assert "batches-not-opened" in {item.code for item in report.not_shown}


def test_a_step_on_x_with_a_false_step_proof_shows_nothing() -> None:
    """Absence rests on the proofs: without them an opened batch is only a list of records."""

    def bent(predicate: dict[str, Any]) -> None:
        claim = next(claim for claim in predicate["claims"] if claim["type"] == "steps-proven")
        proof = parse(simulation.objects[claim["steps"][0]["proof_sha256"]], what="step proof")
        proof["proofs"] = [proof["proofs"][0][:-2] + "00"]
        claim["steps"][0]["proof_sha256"] = simulation.put(canonical_bytes(proof))

    simulation = Opened().alone().bend("child.predicate", bent)
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert absence(report).status == "failed"


def test_points_that_nothing_ties_prove_no_absence() -> None:
    """The points are of a sham run without X, whose steps are proven; the released weights come from another."""

    def closed(claim: dict[str, Any]) -> None:
        del claim["first_opening_sha256"], claim["last_opening_sha256"]

    report = Opened().alone().bend("child.steps", closed).verify()
    assert report.verdict == "INCOMPLETE"
    assert (absence(report).status, absence(report).level) == ("passed", "committed")


def test_a_view_that_does_not_see_what_the_step_reads_is_refused() -> None:
    """The data is committed to by its captions, which are harmless; the steps read the images beside them."""
    simulation = Opened().alone()
    training = simulation.training["child"][0]
    program, x = simulation.kit.program, simulation.step_x[0]
    assert opening_verify.unseen_fields(program, training, x) == ["label"]
    captions = [item.model_copy(update={"view": "text/1"}) for item in (training, x)]
    with pytest.raises(ProofRefused, match="the step reads image, label of a record, view text/1 sees 'text'"):
        opening_verify.unseen_fields(program, *captions)
    renamed = training.model_copy(update={"reading": opened_reading("thumbnail")})
    with pytest.raises(ProofRefused, match="thumbnail"):
        opening_verify.unseen_fields(program, renamed, x)


def opened_reading(name: str) -> Any:
    from pot.commitments.dataset import Reading

    return Reading(fields={"image": name})


def test_x_under_another_view_than_the_data_is_denied() -> None:
    """Digests of two views never match, so X would seem to be absent whatever the steps read."""
    simulation = Opened().alone()
    simulation.step_x = committed("exclusion", [image(5)], "json/1")
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"step-absence"}


def test_whole_records_can_be_seen_through_another_view() -> None:
    """A commitment to whole records binds their images too: X by pixels is compared with the opened images."""
    for number, verdict in ((100, "PASS"), (5, "DENY")):
        simulation = Opened(view="json/1").alone()
        simulation.step_x = committed("exclusion", [image(number)], "pixels/1")
        assert simulation.verify().verdict == verdict


def test_keyed_or_many_digests_are_not_compared() -> None:
    simulation = Opened()
    program, (training, _), (x, _) = simulation.kit.program, simulation.training["child"], simulation.step_x
    from pot.commitments.hiding import Hiding

    hidden = Hiding(method="blake3-keyed/1", id="ab" * 32)
    for other in (x.model_copy(update={"view": "winnow50/1"}), x.model_copy(update={"hiding": hidden})):
        with pytest.raises(ProofRefused, match="keys or keyed digests"):
            opening_verify.unseen_fields(program, training, other)
    opening = opening_verify.BatchOpening.from_value(simulation.opening_of([0]), what="opening")
    for data, words in ((training.model_copy(update={"hiding": hidden}), "under a key"),
                        (training.model_copy(update={"view": "winnow50/1"}), "many keys")):  # fmt: skip
        with pytest.raises(ProofRefused, match=words):
            opening_verify.record_digests([data], [0], opening_verify.records_of(opening), opening)


def test_a_listing_of_another_x_is_denied() -> None:
    def swap(claim: dict[str, Any]) -> None:
        claim["digests_sha256"] = simulation.put(committed("exclusion", [image(300 + n) for n in range(12)])[1])

    simulation = Opened().alone().bend("step_exclusion", swap)
    report = simulation.verify()
    assert report.verdict == "DENY"
    assert failed(report) - {"requirement"} == {"exclusion-set"}


def test_absence_of_another_set_does_not_meet_the_policy() -> None:
    def other(claim: dict[str, Any]) -> None:
        x, listing = committed("exclusion", [image(400)])
        claim.update(exclusion_sha256=simulation.put(x.to_bytes()), digests_sha256=simulation.put(listing))

    simulation = Opened().alone().bend("step_exclusion", other)
    report = simulation.verify()
    assert report.verdict == "INCOMPLETE"
    assert unchecked(report) == {"requirement"}


def test_an_image_of_other_extents_is_another_record() -> None:
    """What the view cannot see, and no check here stops: the same integers, read from another shape. It is said."""
    from pot.zk.semantics.batches import batch_arrays

    simulation = Opened()
    record = image(5)
    flat = {**record, "image": [[*record["image"][0], *record["image"][1]]]}
    same = [batch_arrays(simulation.kit.program, [item] * 8)["image"].tolist() for item in (record, flat)]
    assert same[0] == same[1]
    assert committed("exclusion", [record])[1] != committed("exclusion", [flat])[1]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all strings in a JSON value."""
    if isinstance(value, str):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [place for key, item in items for place in leaves(item, (*path, key))]


def flipped(value: Any, path: tuple[Any, ...], at: int) -> None:
    """Change one character of a string."""
    for key in path[:-1]:
        value = value[key]
    text = value[path[-1]]
    at %= len(text)
    value[path[-1]] = text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]


@pytest.mark.parametrize("stage", ["batch_opening", "first_opening", "last_opening"])
def test_no_opening_holds_with_any_string_changed(stage: str) -> None:
    """In the middle of every field; the certificate is signed again over each."""
    places: list[tuple[Any, ...]] = []
    Opened().bend(stage, lambda opening: places.extend(leaves(opening)) if not places else None).release()
    assert len(places) >= 5
    for path in places:

        def change(opening: dict[str, Any], path: tuple[Any, ...] = path) -> None:
            if opening["step"] in ("0", "1", "6"):
                flipped(opening, path, len(path) * 29)

        report = Opened().alone().bend(stage, change).verify()
        assert report.verdict != "PASS", path
        assert failed(report) & {"state-opening", "batch-opening"} or unchecked(report) & {"state-opening"}, path
