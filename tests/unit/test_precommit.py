"""Pre-commitments: their form, and what beginning a run refuses."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from recorded_run import prepare

from pot.data.commit import load_committed
from pot.errors import EnvironmentFailure, Malformed, Refused, UsageError
from pot.recording import begin as begin_module
from pot.recording.begin import begin
from pot.recording.config import first_difference, plain_config
from pot.recording.environment import differences, environment_sha256, refuse_unrepeatable, variables
from pot.recording.precommit import Precommit, SeedNonce

SIZES = {"batch_size": 4, "steps": 10, "checkpoint_every": 5}


@pytest.fixture
def committed(tmp_path: Path) -> Any:
    return load_committed(prepare(tmp_path / "program").folder / "train.json")


def _document(finished_run: Any) -> dict[str, Any]:
    return json.loads((finished_run.run_dir / "precommit.json").read_bytes())


def test_it_reads_back(finished_run: Any) -> None:
    data = (finished_run.run_dir / "precommit.json").read_bytes()
    assert Precommit.from_bytes(data, what="precommit").to_bytes() == data
    program = finished_run.precommit.program
    assert program.command[0] == "toy_training.py"
    assert [file.path for file in program.files] == ["toy_training.py"]
    assert [(file.path, file.dataset) for file in program.data_files] == [("train.jsonl", "train")]


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("data", [], "at least one dataset"),
        ("steps", "0", "at least 1"),
        ("steps", str(2**63), "steps exceeds"),
        ("checkpoint_every", "0", "at least 1"),
        ("environment_sha256", "00" * 32, "environment_sha256"),
        ("order", {"method": "feistel/1", "batch": "23", "drop_last": True}, "must not exceed"),
        ("order", {"method": "feistel/2", "batch": "2", "drop_last": True}, "order.method"),
        ("version", "pot/precommit/v2", "is pot/precommit/v2, pot/precommit/v1 is expected"),
        ("semantics", "tolerant", "semantics"),
    ],
)
def test_inconsistent_documents_are_refused(finished_run: Any, field: str, value: Any, match: str) -> None:
    with pytest.raises(Malformed, match=match):
        Precommit.from_value({**_document(finished_run), field: value}, what="precommit")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../b", "", ".", "a//b", "./a", "a\\b", "a\u0000b", "x" * 600]
)
def test_paths_that_escape_are_refused(finished_run: Any, path: str) -> None:
    document = _document(finished_run)
    document["program"]["data_files"][0]["path"] = path
    with pytest.raises(Malformed, match="path"):
        Precommit.from_value(document, what="precommit")


def test_a_batch_that_would_keep_every_reader_busy_is_refused(finished_run: Any) -> None:
    document = _document(finished_run)
    document["data"][0]["records"] = document["order"]["batch"] = str(2**40)
    with pytest.raises(Malformed, match=r"order\.batch exceeds 1048576"):
        Precommit.from_value(document, what="precommit")


def test_a_program_is_a_script_whose_files_can_lie_beside_each_other(finished_run: Any) -> None:
    document = _document(finished_run)
    document["program"]["files"][0]["path"] = "-c"
    document["program"]["command"] = ["-c", "print('code that no file holds')"]
    with pytest.raises(Malformed, match="must begin with a script, not with an option"):
        Precommit.from_value(document, what="precommit")
    document = _document(finished_run)
    document["program"]["data_files"] += [{"path": "train.jsonl/x", "bytes": "1", "sha256": "00" * 32}]
    with pytest.raises(Malformed, match=r"train\.jsonl is listed as a file and as a folder"):
        Precommit.from_value(document, what="precommit")
    document = _document(finished_run)
    document["program"]["command"].append("a\0b")
    with pytest.raises(Malformed, match="NUL"):
        Precommit.from_value(document, what="precommit")


def test_configs_become_plain() -> None:
    assert plain_config({"lr": 0.1, "n": 3, "big": 2**60, "none": None, "t": (1, 2.5), "d": {"x": True}}) == {
        "lr": "0.1", "n": 3, "big": str(2**60), "t": [1, "2.5"], "d": {"x": True}
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"config\.model: a object has no JSON form"):
        plain_config({"model": object()})
    with pytest.raises(UsageError, match="not a string"):
        plain_config({1: "x"})


def test_the_first_difference_is_named() -> None:
    assert first_difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == "a[1].b: 2, now 3"
    assert first_difference({"a": 1}, {}) == "a: 1, now absent"
    assert first_difference({"a": 1}, {"a": 1}) is None


def test_a_run_cannot_be_begun_again_with_another_config(tmp_path: Path, committed: Any) -> None:
    begin(tmp_path / "run", commitments=[committed], config={"lr": 0.1}, **SIZES).close()
    again = begin(tmp_path / "run", commitments=[committed], config={"lr": 0.1}, **SIZES)
    again.close()
    with pytest.raises(Refused, match=r"config\.lr: '0\.1', now '0\.2'"):
        begin(tmp_path / "run", commitments=[committed], config={"lr": 0.2}, **SIZES)
    with pytest.raises(Refused, match="steps: '10', now '11'"):
        begin(tmp_path / "run", commitments=[committed], config={"lr": 0.1}, **{**SIZES, "steps": 11})


def test_beginning_again_gives_the_same_seed_and_another_folder_another(tmp_path: Path, committed: Any) -> None:
    seeds = []
    for name in ("one", "one", "two"):
        begun = begin(tmp_path / name, commitments=[committed], **SIZES)
        seeds.append((begun.seed, begun.torch_seed("init")))
        begun.close()
    assert seeds[0] == seeds[1]
    assert seeds[0][0] != seeds[2][0]
    assert 0 <= seeds[0][1] < 2**63


def test_two_recorders_cannot_share_a_run(tmp_path: Path, committed: Any) -> None:
    begun = begin(tmp_path / "run", commitments=[committed], **SIZES)
    with pytest.raises(Refused, match="another recorder"):
        begin(tmp_path / "run", commitments=[committed], **SIZES)
    begun.close()


def test_bad_arguments_are_one_sentence(tmp_path: Path, committed: Any) -> None:
    with pytest.raises(UsageError, match="pot data commit"):
        begin(tmp_path / "a", **SIZES)
    with pytest.raises(UsageError, match="steps is neither"):
        begin(tmp_path / "b", commitments=[committed], batch_size=4)
    with pytest.raises(UsageError, match="batch_size is 0"):
        begin(tmp_path / "c", commitments=[committed], batch_size=0, steps=1)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes\.txt"):
        begin(tmp_path / "d", commitments=[committed], **SIZES)


def test_epochs_stand_for_steps(tmp_path: Path, committed: Any) -> None:
    begun = begin(tmp_path / "run", commitments=[committed], config={"epochs": 3, "batch_size": 4})
    assert begun.precommit.steps == "15"  # 22 records, batches of 4, the incomplete one dropped
    begun.close()


def test_a_verifiers_nonce_is_waited_for(
    tmp_path: Path, committed: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said, asked = tmp_path / "run", begin_module.talk, threading.Event()

    def heard(sentence: str) -> None:
        said(sentence)
        if "waiting" in sentence:
            asked.set()

    def verifier() -> None:
        asked.wait()
        precommit = Precommit.from_bytes((run / "precommit.json").read_bytes(), what="p")
        value = {"version": "pot/seed-nonce/v1", "precommit_sha256": precommit.sha256(), "nonce": "5a" * 32}
        (run / "nonce.tmp").write_bytes(SeedNonce.from_value(value, what="n").to_bytes())
        (run / "nonce.tmp").rename(run / "nonce.json")

    monkeypatch.setattr(begin_module, "talk", heard)
    thread = threading.Thread(target=verifier, daemon=True)
    thread.start()
    begun = begin(run, commitments=[committed], nonce="verifier", **SIZES)
    thread.join()
    assert begun.nonce.hex() == "5a" * 32
    assert begun.precommit.seed_source == "verifier"
    assert "pot challenge seed" in capsys.readouterr().err
    begun.close()


def test_a_nonce_that_does_not_come_or_is_anothers(tmp_path: Path, committed: Any) -> None:
    run = tmp_path / "run"
    with pytest.raises(EnvironmentFailure, match="no nonce came"):
        begin(run, commitments=[committed], nonce="verifier", nonce_timeout=0.0, **SIZES)
    value = {"version": "pot/seed-nonce/v1", "precommit_sha256": "00" * 32, "nonce": "5a" * 32}
    (run / "nonce.json").write_bytes(SeedNonce.from_value(value, what="n").to_bytes())
    with pytest.raises(Refused, match="given for the pre-commitment 0000"):
        begin(run, commitments=[committed], nonce="verifier", **SIZES)


def test_environment_differences_are_named_and_notes_are_not() -> None:
    recorded = {"bits": {"torch": {"threads": "1"}, "python": "3.11"}, "notes": {"kernel": "a"}}
    present = {"bits": {"torch": {"threads": "2"}, "python": "3.11"}, "notes": {"kernel": "b"}}
    assert differences(recorded, present) == ["torch.threads: recorded '1', here '2'"]
    assert environment_sha256(recorded) != environment_sha256(present)


def test_load_dependent_threads_are_refused() -> None:
    refuse_unrepeatable({"OMP_DYNAMIC": "FALSE", "MKL_DYNAMIC": "0"})
    with pytest.raises(Refused, match="OMP_DYNAMIC=true"):
        refuse_unrepeatable({"OMP_DYNAMIC": "true"})


def test_only_variables_that_change_bits_are_recorded() -> None:
    source = {"OMP_NUM_THREADS": "2", "SECRET": "x", "TORCHINDUCTOR_CACHE_DIR": "/t", "PYTHONHASHSEED": "0"}
    assert variables(source) == {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0"}
