"""A47, A50: a prover who makes every audit of its run end without a result, or cost more than the auditor has.

Whatever one unit does, the others' outcomes stand, the result can be signed and read, and nothing is read or allocated
because the prover's documents or program say so.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun, prepare

from attest.bundle import SigstoreBundle
from attest.certify import sign_audit
from attest.statement import Statement
from attest.trust.keys import generate
from pot.audit import audit as auditing
from pot.audit.audit import audit
from pot.audit.challenges.challenge import new_challenge
from pot.audit.dispute import dispute
from pot.audit.party import load_party
from pot.audit.replaying.replay import Replay, Replayer
from pot.audit.result import AuditResult
from pot.canonical import canonical_bytes, sha256_hex
from pot.errors import EnvironmentFailure, Refused
from pot.recording.precommit import Precommit
from pot.recording.state import check_files

H = "ab" * 32


def _rewritten(folder: Path, old: str, new: str, **sizes: int) -> RecordedRun:
    run = prepare(folder, **sizes)
    script = run.folder / "toy_training.py"
    text = script.read_text(encoding="utf-8")
    assert old in text
    script.write_text(text.replace(old, new), encoding="utf-8")
    done = run.start()
    assert done.returncode == 0, done.stderr
    return run


def _audit(run: RecordedRun, **options: Any) -> AuditResult:
    segments = len(run.chain().segments)
    challenge = new_challenge(run.precommit.sha256(), run.transcript.sha256(), segments, forged="0.01", detect="1")
    return audit(run.run_dir, challenge, [run.folder / "train.jsonl"], run.folder, **options)


@pytest.mark.parametrize("character", ["\U0001f600", "\x01", '"', "\ud800"])
def test_an_unfavourable_audit_of_long_names_can_be_signed_and_read(character: str) -> None:
    challenge = new_challenge(H, H, 300, forged="0.001", detect="1")
    bad = Replay("MISMATCH", f"component model differs, first differing tensor {character * 300}",
                 distances={"model": "0.123456789012"})  # fmt: skip
    value = {
        "version": "pot/audit-result/v1", "precommit_sha256": H, "transcript_sha256": H,
        "challenge": challenge.model_dump(mode="json", exclude_none=True), "datasets": [], "init": "MATCH",
        "replays": [auditing._unit(number, bad, at < 50) for at, number in enumerate(challenge.chosen)],
        "extra": [auditing._unit(number, bad, at < 50) for at, number in enumerate(challenge.chosen[:60])],
        "points": "NOT_CHECKED", "environment_sha256": H, "isolation": "full",
    }  # fmt: skip
    line = sign_audit(AuditResult.from_value(value, what="audit"), generate("ed25519"))
    payload = SigstoreBundle.from_line(line[:-1], what="audit").dsse_envelope.payload_bytes()
    Statement.from_payload(payload, what="audit")


RUBBISH = """from pot import begin, record
import pot.recording.replaying as replaying

_root = replaying.root
replaying.root = lambda replay, step, components: _root(replay, step, COMPONENTS)
"""


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("{'model': 'no digest'}", 0),
        ("{**components, 'unknown': '00' * 32, 'optimizer': 'no digest'}", 6),
        ("{'rng': '00' * 32}", 0),
    ],
)
def test_rubbish_of_an_inner_state_leaves_the_rest_of_the_audit(tmp_path: Path, said: str, kept: int) -> None:
    run = _rewritten(
        tmp_path / "program", "from pot import begin, record\n", RUBBISH.replace("COMPONENTS", said)
    )  # no digest of the transcript covers it: every segment matches
    documents: list[Any] = []
    result = _audit(run, inner=documents.append)
    assert {unit.outcome for unit in result.replays} == {"MATCH"}
    assert result.inner_commitment == documents[0].commitment()
    assert len(documents[0].states) == kept
    assert all(set(state.components) == {"cursor", "model", "rng"} for state in documents[0].states)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_file_of_another_size_is_not_read(recorded: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded.run_dir / f"checkpoints/step-000005/{name}"
    os.truncate(path, 40 << 30)  # sparse: it costs its sender nothing
    monkeypatch.setattr("pot.recording.state.read_state_file", lambda path: pytest.fail(f"{path} was read"))
    segment = recorded.chain().segments[1]
    with pytest.raises(Refused, match="not the committed file"):
        check_files(recorded.run_dir, segment.start_state.files)
    replay = recorded.replay(2)
    assert replay.outcome == "REFUSED"
    assert "not the committed file" in replay.detail


def test_more_roots_than_a_variable_holds_are_asked_for(tmp_path: Path) -> None:
    run = prepare(tmp_path / "program", steps=4200, every=1)
    run.arguments.append("4200")
    done = run.start()
    assert done.returncode == 0, done.stderr
    assert len(run.chain().segments[0].roots) == 4199
    assert run.replay(1).outcome == "MATCH"


def test_one_units_failure_leaves_the_others_outcomes(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Replayer.segment

    def segment(self: Replayer, segment: Any, **options: Any) -> Replay:
        if segment.index == 2:
            raise EnvironmentFailure("disk: No space left on device")
        if segment.index == 3:
            raise MemoryError
        if segment.index == 4:
            raise OSError(28, "No space left on device")
        return real(self, segment, **options)

    monkeypatch.setattr(Replayer, "segment", segment)
    result = _audit(recorded)
    found = {unit.unit_number: (unit.outcome, unit.detail) for unit in result.replays}
    assert found["2"] == ("REFUSED", "disk: No space left on device")
    assert found["3"] == ("REFUSED", "this machine has not enough memory for it")
    assert found["4"] == ("REFUSED", "No space left on device")
    assert [found[number][0] for number in "156"] == ["MATCH"] * 3


def test_a_full_disk_of_the_auditor_is_no_mismatch(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pot.recording.state.safetensors_parts", full)
    result = _audit(recorded)
    assert result.replays[1].outcome == "REFUSED"
    assert result.init != "MISMATCH"
    monkeypatch.setattr("pot.data.commit.commit", lambda *_, **__: (_ for _ in ()).throw(EnvironmentFailure("full")))
    result = _audit(recorded)
    assert (result.datasets, result.datasets_differ) == ((), None)


@pytest.mark.parametrize("bend", ["variable", "file", "data", "dataset"])
def test_names_and_variables_that_no_system_has_end_in_a_result(recorded: Any, bend: str) -> None:
    document = json.loads((recorded.run_dir / "precommit.json").read_bytes())
    if bend == "file":
        document["program"]["files"].append({"path": "b" * 300, "sha256": H})
        document["program"]["files"].sort(key=lambda item: item["path"])
    elif bend == "data":
        document["program"]["data_files"][0]["path"] = "c" * 300
    elif bend == "dataset":
        document["data"][0]["name"] = "d" * 300
        document["program"]["data_files"][0]["dataset"] = "d" * 300
    else:
        document["environment"]["bits"]["variables"] = {"OMP_A": "1\0"}
        document["environment_sha256"] = sha256_hex(canonical_bytes(document["environment"]))
    precommit = Precommit.from_value(document, what="precommit")
    from pot.audit import roots
    from pot.audit.replaying.spread import ReplayJob, RunPlace, replays

    place = RunPlace(
        recorded.run_dir, precommit.to_bytes(), "00" * 32, (recorded.folder / "train.jsonl",), recorded.folder,
        Replayer(recorded.run_dir, precommit, "00" * 32, [], recorded.folder).limits, (),
    )  # fmt: skip
    replayer = place.replayer()
    job = ReplayJob(place, recorded.chain().segments[1], None)
    ((_, replay),) = replays([job], replayer)
    expected = "MISMATCH" if bend == "dataset" else "REFUSED"  # another pre-commitment gives another order
    assert replay.outcome == expected, replay.detail
    roots.recomputed(recorded.run_dir, precommit, replayer, None)
    assert len(replayer.own.sha256()) == 64


WRITES_MUCH = """    import os
    if "POT_REPLAY" in os.environ:
        import atexit
        global RATE
        RATE = os.urandom(1)[0]
        out = os.environ["POT_REPLAY_OUT"] + "/end/model.safetensors"
        atexit.register(lambda: os.path.exists(out) and os.truncate(out, 6 << 30))
    source = Sums"""


def test_a_dispute_without_the_committed_state_reads_no_more_than_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _rewritten(tmp_path / "a", "    source = Sums", WRITES_MUCH, steps=10)
    shutil.copytree(run.folder, tmp_path / "b")
    other = RecordedRun(tmp_path / "b", run.arguments)
    other.bend_tensors(10, "model", lambda values: [7] * 4)
    from pot.audit.replaying import produced

    sizes: list[int] = []
    real = produced.read_state_file
    monkeypatch.setattr(produced, "read_state_file", lambda path: sizes.append(path.stat().st_size) or real(path))
    for party in (run, other):
        (party.run_dir / "checkpoints/step-000010/model.safetensors").unlink()
    parties = [
        load_party(
            item.run_dir,
            lambda precommit, nonce, item=item: Replayer(item.run_dir, precommit, nonce, [item.folder], run.folder),
        )
        for item in (run, other)
    ]
    assert dispute(*parties).differs_by is not None
    assert all(size < 1 << 22 for size in sizes)
