"""Audits of toy runs: every outcome of a replay, roots recomputed, and the walls around the program."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun, honest_run, prepare

from attest.bundle import SigstoreBundle
from attest.cli.main import main
from attest.statement import Statement
from pot.audit.audit import AuditResult, audit
from pot.audit.challenges.challenge import new_challenge
from pot.audit.replaying.replay import Replayer
from pot.audit.replaying.sandbox import Limits, isolation, run_limited
from pot.canonical import canonical_bytes
from pot.errors import Refused, Undecided, UsageError
from pot.recording.precommit import SeedNonce


def _audit(run: RecordedRun, **options: Any) -> AuditResult:
    units = {"segment": len(run.chain().segments), "step": int(run.precommit.steps)}
    unit = options.pop("unit", "segment")
    challenge = new_challenge(
        run.precommit.sha256(),
        run.transcript.sha256(),
        units[unit],
        unit=unit,
        forged="0.34",
        detect="0.5",
        nonce="03" * 32,
    )
    data = options.pop("data", [run.folder / "train.jsonl"])
    return audit(run.run_dir, challenge, data, options.pop("code", run.folder), **options)


def test_an_honest_run_matches_and_the_result_reads_back(finished_run: Any) -> None:
    result = _audit(finished_run)
    assert {unit.outcome for unit in result.replays} == {"MATCH"}
    assert result.init == "MATCH"
    assert result.datasets == (finished_run.precommit.data[0].commitment_sha256,)
    assert result.datasets_differ is None
    assert AuditResult.from_bytes(result.to_bytes(), what="audit") == result


def test_steps_are_answered_by_their_segments(finished_run: Any) -> None:
    result = _audit(finished_run, unit="step")
    assert [unit.unit_number for unit in result.replays] == list(result.challenge.chosen)
    assert {unit.outcome for unit in result.replays} == {"MATCH"}


def test_the_auditors_own_nonce_is_named_and_anothers_refused(finished_run: Any) -> None:
    nonce = SeedNonce.from_bytes((finished_run.run_dir / "nonce.json").read_bytes(), what="nonce")
    assert _audit(finished_run, seed_nonce=nonce).seed_nonce == nonce
    other = SeedNonce.from_value({**nonce.model_dump(), "nonce": "00" * 32}, what="nonce")
    with pytest.raises(Refused, match="does not use the nonce"):
        _audit(finished_run, seed_nonce=other)


def test_other_data_or_code_is_refused_and_not_passed(recorded: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes((recorded.folder / "train.jsonl").read_bytes() + b'{"id":99,"value":1}\n')
    missing = "no file of --data has the SHA-256 [0-9a-f]{64}; the program reads it as train.jsonl"
    with pytest.raises(UsageError, match=f"nothing was replayed: {missing}; give it, or .* --sign-refusal"):
        _audit(recorded, data=[other])
    result = _audit(recorded, data=[other], undelivered=True)
    assert {unit.outcome for unit in result.replays} == {"REFUSED"}
    assert re.fullmatch(missing, str(result.replays[0].detail))
    assert (result.datasets, result.init) == ((), "NOT_CHECKED")
    script = recorded.folder / "toy_training.py"
    script.write_text(script.read_text(encoding="utf-8").replace("RATE = 3", "RATE = 4"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"toy_training.py in .*, which --code names, is not the committed one"):
        _audit(recorded)
    result = _audit(recorded, undelivered=True)
    assert "is not the committed one" in str(result.replays[0].detail)
    with pytest.raises(UsageError, match=r"toy_training.py is not in .*, which --code names; give it"):
        _audit(recorded, code=tmp_path)
    with pytest.raises(UsageError, match="given as data"):
        _audit(recorded, data=[tmp_path / "absent"])


def test_roots_that_the_data_does_not_give_are_named(recorded: Any) -> None:
    path = recorded.run_dir / "precommit.json"
    document = json.loads(path.read_bytes())
    document["data"][0]["set_root_blake3"] = "00" * 32
    path.write_bytes(canonical_bytes(document))
    events = recorded.events()
    events[0]["precommit_sha256"] = recorded.precommit.sha256()
    recorded.relink(events)
    assert recorded.codes() == ["batch"]  # another pre-commitment gives another seed
    from pot.audit.roots import recomputed

    replayer = Replayer(
        recorded.run_dir, recorded.precommit, "00" * 32, [recorded.folder / "train.jsonl"], recorded.folder
    )
    assert recomputed(recorded.run_dir, recorded.precommit, replayer, None) == (
        [],
        [document["data"][0]["commitment_sha256"]],
    )


def test_a_broken_chain_is_not_audited(recorded: Any) -> None:
    events = recorded.events()
    recorded.write(events[:9])
    with pytest.raises(
        Undecided, match=r"is not finished: the run stopped after step .* start the training command"
    ) as e:
        _audit(recorded)
    assert e.value.exit_code == 3
    assert main(["challenge", "new", str(recorded.run_dir), "--dry-run"]) == 3  # as pot status says
    events[3], events[4] = events[4], events[3]
    recorded.write(events[:9])
    with pytest.raises(Refused, match="does not hold") as e:
        _audit(recorded)
    assert e.value.exit_code == 1


def _rewritten(folder: Path, old: str, new: str) -> RecordedRun:
    """An honest run of a program with one line changed before it was committed."""
    run = prepare(folder)
    script = run.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    assert old in text
    script.write_text(text.replace(old, new), encoding="utf-8")
    done = run.start(POT_TEST_SECRET="1")
    assert done.returncode == 0, done.stderr
    return run


def test_a_program_that_runs_for_ever_is_a_timeout(tmp_path: Path) -> None:
    run = _rewritten(
        tmp_path / "program",
        "    source = Sums",
        "    import os, time\n    time.sleep(60 if 'POT_REPLAY' in os.environ else 0)\n    source = Sums",
    )
    result = _audit(run, limits=Limits(seconds=1.0), workers=3)
    assert {unit.outcome for unit in result.replays} == {"TIMEOUT"}
    assert result.init == "NOT_CHECKED"


def test_a_program_that_reads_its_surroundings_does_not_replay(tmp_path: Path) -> None:
    run = _rewritten(
        tmp_path / "program",
        "RATE = 3\n",
        "import os\nRATE = 3 + 0 * len(os.environ)\nBONUS = int(os.environ.get('POT_TEST_SECRET', '0'))\n",
    )
    assert _audit(run).init == "MATCH"  # read, but not used
    used = _rewritten(
        tmp_path / "used",
        "self.weights[place] += RATE * self.moments[place]",
        "self.weights[place] += RATE * self.moments[place] + int(__import__('os').environ.get('POT_TEST_SECRET', '0'))",
    )
    assert {unit.outcome for unit in _audit(used).replays} == {"MISMATCH"}


def test_a_slip_of_the_auditor_is_not_signed_unless_that_is_asked_for(finished_run: Any, tmp_path: Path) -> None:
    (tmp_path / "wrong.jsonl").write_bytes(b'{"id":1,"value":1}\n')
    challenge = new_challenge(finished_run.precommit.sha256(), finished_run.transcript.sha256(), 6, forged="0.5")
    (tmp_path / "challenge.json").write_bytes(challenge.to_bytes())
    assert main(["keygen", str(tmp_path / "key.pem")]) == 0
    out = tmp_path / "audit.jsonl"
    words = [
        "audit", str(finished_run.run_dir), "--challenge", str(tmp_path / "challenge.json"), "--data",
        str(tmp_path / "wrong.jsonl"), "--code", str(finished_run.folder), "--key", str(tmp_path / "key.pem"),
        "--out", str(out),
    ]  # fmt: skip
    assert main(words) == 2
    assert not out.exists()
    assert main([*words, "--sign-refusal"]) == 1
    statement = Statement.from_payload(
        SigstoreBundle.from_line(out.read_bytes().strip(), what="audit").dsse_envelope.payload_bytes(), what="audit"
    )
    assert {unit["outcome"] for unit in statement.predicate["replays"]} == {"REFUSED"}


def test_a_program_that_dies_is_refused_with_its_last_words(tmp_path: Path) -> None:
    run = _rewritten(
        tmp_path / "program",
        "    source = Sums",
        "    import os\n    if 'POT_REPLAY' in os.environ:\n        sys.exit('gone \\x1b[31maway')\n    source = Sums",
    )
    result = _audit(run)
    assert {unit.outcome for unit in result.replays} == {"REFUSED"}
    assert result.replays[0].detail == "the program ended with exit code 1: gone [31maway"


def test_a_run_without_a_program_is_refused(recorded: Any) -> None:
    document = json.loads((recorded.run_dir / "precommit.json").read_bytes())
    document["program"]["command"] = []
    from pot.recording.precommit import Precommit

    precommit = Precommit.from_value(document, what="p")
    replayer = Replayer(recorded.run_dir, precommit, "00" * 32, [], recorded.folder)
    assert replayer.initial().outcome == "REFUSED"


@pytest.mark.parametrize(("semantics", "outcome"), [("float", "INCONCLUSIVE"), ("exact", "MISMATCH")])
def test_another_environment_is_inconclusive_for_floats_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, semantics: str, outcome: str
) -> None:
    run = _rewritten(tmp_path / "program", 'semantics="exact"', f'semantics="{semantics}"')
    run.bend_tensors(15, "model", lambda values: [values[0] + 1, *values[1:]])
    assert run.replay(3).outcome == "MISMATCH"
    monkeypatch.setattr(
        "pot.audit.replaying.own_environment.differences", lambda *_: ["torch.threads: recorded '1', here '2'"]
    )
    replay = run.replay(3)
    assert replay.outcome == outcome
    assert "first differing tensor weights" in str(replay.first_difference)
    assert run.replay(2).outcome == "MATCH"  # the same bits elsewhere are a match all the same


def test_the_program_does_not_see_the_run_directory_or_the_network(tmp_path: Path) -> None:
    if isolation() != "full":
        pytest.skip("this machine allows no mount namespace; audits report it")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "answer").write_text("42")
    (tmp_path / "work").mkdir()
    (tmp_path / "key.pem").write_text("secret")
    code = (
        "import os, pathlib, socket, sys; names = os.listdir(sys.argv[1]); "
        "links = [line for line in open('/proc/net/dev') if ':' in line and 'lo:' not in line];"
        "pathlib.Path('out').write_text(repr((names, links, sorted(os.environ), open(sys.argv[2]).read())))"
    )
    ended = run_limited(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "key.pem")],
        tmp_path / "work",
        {"A": "1"},
        Limits(seconds=60),
        [tmp_path / "run", tmp_path / "key.pem"],
        tmp_path / "errors",
    )
    assert ended.code == 0, ended.last_words
    names, links, variables, key = eval((tmp_path / "work" / "out").read_text())
    assert (names, links, key) == ([], [], "")
    assert set(variables) <= {"A", "LC_CTYPE", "PWD", "SHLVL", "_", "OLDPWD"}
    assert (tmp_path / "run" / "answer").read_text() == "42"


def test_a_recorded_variable_that_no_system_can_set_is_one_sentence(recorded: Any) -> None:
    from pot.canonical import sha256_hex
    from pot.errors import EnvironmentFailure
    from pot.recording.precommit import Precommit

    document = json.loads((recorded.run_dir / "precommit.json").read_bytes())
    document["environment"]["bits"]["variables"] = {"OMP_A": "1\0"}
    document["environment_sha256"] = sha256_hex(canonical_bytes(document["environment"]))
    precommit = Precommit.from_value(document, what="p")
    replayer = Replayer(recorded.run_dir, precommit, "00" * 32, [recorded.folder], recorded.folder)
    with pytest.raises(EnvironmentFailure, match="cannot be started: embedded null byte"):
        replayer.initial()


THREE_LINES = """
def main(arguments):
    data, commitment, run_dir = arguments[:3]
    steps, every, batch = (int(text) for text in arguments[3:6])
    source = Sums(7)
    dataset = RecordDataset(data)
    options = {"config": config(steps, every, batch), "commitments": [commitment], "semantics": "exact"}
    with record(run_dir, state=source, data=dataset, **options) as run:
        for items in run.batches(dataset):
            run.step(loss=source.update(items))


if __name__ == "__main__":
    main(sys.argv[1:])
"""


def test_the_three_lines_alone_replay_although_python_seeds_itself(tmp_path: Path) -> None:
    run = _rewritten(tmp_path / "program", 'if __name__ == "__main__":\n    main(sys.argv[1:])\n', THREE_LINES)
    assert run.codes() == []
    assert [file.path for file in run.precommit.program.data_files] == ["train.jsonl"]
    assert [run.replay(index).outcome for index in (1, 2, 6)] == ["MATCH"] * 3
    chain = run.chain()
    replayer = Replayer(run.run_dir, run.precommit, run.events()[0]["nonce"], [run.folder], run.folder)
    assert chain.initial is not None
    assert replayer.initial(chain.initial).initial == chain.initial.components  # also where segment 1 is not drawn


def test_an_honest_run_made_twice_has_two_ids(tmp_path: Path, finished_run: Any) -> None:
    assert honest_run(tmp_path / "again").precommit.run_id != finished_run.precommit.run_id


def _with_roots(folder: Path) -> RecordedRun:
    """A root every 5 steps, files every 15."""
    run = prepare(folder)
    run.arguments.append("15")
    done = run.start()
    assert done.returncode == 0, done.stderr
    return run


def test_roots_inside_a_segment_are_compared_and_narrow_the_steps(tmp_path: Path) -> None:
    run = _with_roots(tmp_path / "program")
    assert [len(segment.roots) for segment in run.chain().segments] == [2, 2]
    replay = run.replay(1)
    assert replay.outcome == "MATCH"
    assert sorted(replay.roots) == [5, 10]
    events = run.events()
    root = next(event for event in events if event["type"] == "checkpoint" and event["step"] == "10")
    assert root["files"] == []
    root["components"]["model"] = "ab" * 32
    run.restate(events)
    assert run.codes() == []
    replay = run.replay(1)  # the end state is the honest one
    assert replay.outcome == "MISMATCH"
    assert replay.detail == (
        "after step 10: component model differs; the state after step 5 was still the committed one"
    )
    assert replay.difference is not None
    assert (replay.difference.equal_after, replay.difference.by) == (5, 10)


def test_a_mismatch_says_how_far_away_it_is(recorded: Any) -> None:
    recorded.bend_tensors(15, "model", lambda values: [values[0] + 1000, *values[1:]])
    replay = recorded.replay(3)
    assert replay.outcome == "MISMATCH"
    assert float(replay.distances["model"]) > 0.01
    assert "first differing tensor weights; model " in replay.detail
    assert replay.detail.endswith(" of its update away")


def _suspect(monkeypatch: pytest.MonkeyPatch, run: RecordedRun, *numbers: int) -> None:
    from pot.audit.screening.checks import Screening

    value = {
        "version": "pot/screening/v1", "thresholds": "1", "segments": str(len(run.chain().segments)),
        "flagged": str(len(numbers)), "suspicious": [str(number) for number in numbers], "details": [], "unread": [],
    }  # fmt: skip
    screening = Screening.from_value(value, what="screening")
    monkeypatch.setattr("pot.audit.audit.screen", lambda *_: screening)


def test_suspicious_segments_are_replayed_first_and_besides(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {int(unit.unit_number) for unit in _audit(recorded).replays}
    others = [number for number in range(1, 7) if number not in chosen]
    assert len(others) >= 2
    _suspect(monkeypatch, recorded, others[1], min(chosen), others[0])
    order: list[int] = []
    run_segment = Replayer.segment

    def noted(self: Replayer, segment: Any, **options: Any) -> Any:
        order.append(segment.index)
        return run_segment(self, segment, **options)

    monkeypatch.setattr(Replayer, "segment", noted)
    result = _audit(recorded)
    assert order[:3] == [others[1], min(chosen), others[0]]
    assert result.extra is not None
    assert [(unit.unit_number, unit.outcome) for unit in result.extra] == [
        (str(others[1]), "MATCH"),
        (str(others[0]), "MATCH"),
    ]
    assert {unit.unit_number for unit in result.replays} == {str(number) for number in chosen}
    assert [unit.unit_number for unit in _audit(recorded, suspicious=1).extra or ()] == [str(others[1])]
    assert _audit(recorded, suspicious=0).extra is None
    assert _audit(recorded, screening=False).screening is None


def test_a_mismatch_besides_the_challenge_ends_the_command_with_1(
    recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from attest.cli.main import build, main
    from pot.audit.salted import InnerDigests

    honest = _audit(recorded)
    number = next(number for number in range(2, 6) if str(number) not in honest.challenge.chosen)
    step = 5 * number
    before = next(event for event in recorded.events() if event["type"] == "checkpoint" and event["step"] == str(step))
    recorded.bend_tensors(step, "model", lambda values: [values[0] + 1, *values[1:]])
    assert before["components"]["model"] != recorded.chain().segments[number - 1].end_state.components["model"]
    _suspect(monkeypatch, recorded, number)
    run = (recorded.precommit.sha256(), recorded.transcript.sha256(), 6)
    drawn = (new_challenge(*run, forged="1", nonce=f"{byte:02x}" * 32) for byte in range(256))
    challenge = next(item for item in drawn if item.chosen not in {(str(number),), (str(number + 1),)})
    (tmp_path / "challenge.json").write_bytes(challenge.to_bytes())
    assert main(["keygen", str(tmp_path / "key.pem")]) == 0
    words = [
        "audit", str(recorded.run_dir), "--challenge", str(tmp_path / "challenge.json"), "--data",
        str(recorded.folder / "train.jsonl"), "--code", str(recorded.folder), "--key", str(tmp_path / "key.pem"),
        "--out", str(tmp_path / "audit.jsonl"), "--inner-out", str(tmp_path / "inner.json"),
    ]  # fmt: skip
    shown = CliRunner().invoke(build("audit"), words)
    assert shown.exit_code == 1, shown.output
    assert "extra          1 of them replayed besides: 1 MISMATCH" in shown.output
    assert "1 of 6 segments replayed: 1 MATCH" in shown.output
    inner = InnerDigests.from_bytes((tmp_path / "inner.json").read_bytes(), what="inner")
    assert f"inner digests  committed: {inner.sha256()}" in shown.output


def test_inner_digests_are_of_steps_that_no_checkpoint_publishes(finished_run: Any) -> None:
    from pot.audit.salted import InnerDigests, inner_step

    kept: list[InnerDigests] = []
    result = _audit(finished_run, inner=kept.append)
    assert result.inner_commitment == kept[0].commitment()
    segments = finished_run.chain().segments
    wanted = {
        inner_step(finished_run.transcript.sha256(), segments[int(number) - 1]) for number in result.challenge.chosen
    }
    assert {int(state.step) for state in kept[0].states} == wanted
    published = {event["components"]["model"] for event in finished_run.events() if event["type"] == "checkpoint"}
    assert published.isdisjoint(state.components["model"] for state in kept[0].states)
    again: list[InnerDigests] = []
    _audit(finished_run, inner=again.append)
    assert [state.components for state in again[0].states] == [state.components for state in kept[0].states]
    assert again[0].commitment() != kept[0].commitment()  # salted
    assert _audit(finished_run).inner_commitment is None


def test_hints_about_another_run_are_refused(finished_run: Any) -> None:
    from types import SimpleNamespace

    foreign: Any = SimpleNamespace(transcript_sha256="00" * 32)
    with pytest.raises(Refused, match="the hint is about the transcript 0000"):
        _audit(finished_run, hints=[foreign])
    with pytest.raises(UsageError, match="3 hints were given"):
        _audit(finished_run, hints=[foreign] * 3)


def test_a_lost_start_state_is_refused_and_a_contradictory_one_is_a_mismatch(recorded: Any) -> None:
    path = recorded.run_dir / "checkpoints/step-000010/model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert recorded.replay(3).outcome == "REFUSED"
    path.write_bytes(data)
    events = recorded.events()
    event = next(item for item in events if item["type"] == "checkpoint" and item["step"] == "10")
    event["components"]["model"] = "ab" * 32
    recorded.restate(events)
    replay = recorded.replay(3)
    assert replay.outcome == "MISMATCH"
    assert "the committed start state" in replay.detail


def test_the_command_prints_tolerances_beside_the_forging_distance(finished_run: Any) -> None:
    from attest.cli.audit import _lines
    from pot.audit.replaying.tolerance import Drift, judge_segment, tolerance_document

    segments = [
        judge_segment(1, 2e-5, 1e-5, 3e-2),
        judge_segment(2, 9e-3, 5e-3, 2e-3),
        judge_segment(3, None, None, None),
    ]
    drift = Drift()
    drift.signs = drift.same = 7
    result = _audit(finished_run, screening=False).model_copy(
        update={"tolerance": tolerance_document("here", segments, drift)}
    )
    printed = [line for line in _lines(result, []) if line.startswith(("tolerance", "drift", "screening"))]
    assert printed == [
        "screening      not asked for",
        "tolerance      segment 1: distance 2e-05, tolerance 0.0001 (noise 1e-05), smallest forgery 0.03: within",
        (
            "tolerance      segment 2: distance 0.009, tolerance 0.01 (noise 0.005), smallest forgery 0.002: within,"
            " which shows nothing here"
        ),
        (
            "tolerance      segment 3: distance unknown, tolerance 0.0 (noise unknown), smallest forgery not measured:"
            " not within, which shows nothing here"
        ),
        "drift          0.0 over all, budget 0.0; 7 of 7 residuals go the same way (p 0.00781): FLAGGED, one direction",
    ]
    assert AuditResult.from_bytes(result.to_bytes(), what="audit") == result
