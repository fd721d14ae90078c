"""Two processes on gloo: DDP's copies and FSDP2's rows are recorded as one run, resumed after SIGKILL, and replayed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from attest.bundle import read_release
from attest.certify import certify
from attest.trust.keys import generate
from attest.verdict.policy import read_policy
from attest.verdict.verify import verify
from pot.audit.replaying.replay import Replay, Replayer
from pot.audit.screening.checkpoints import open_checkpoint
from pot.canonical import canonical_bytes
from pot.commitments.sharded import sharded_digest
from pot.commitments.state import entries_from_safetensors, tensors_digest
from pot.data.commit import commit, write_committed
from pot.errors import Refused, UsageError
from pot.recording.checking.finished import load_run
from pot.recording.writing.file_names import component_files

np = pytest.importorskip("numpy")

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = {"train_ddp": 120, "train_fsdp": 110}
WHOLE = """
import sys
from pathlib import Path
from pot.commitments.sharded import sharded_digest
from pot.commitments.state import entries_from_safetensors
entries = entries_from_safetensors(Path(sys.argv[1]).read_bytes())
assert "torch" not in sys.modules
print(sharded_digest("model", entries, 2))
"""


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **more}


def _command(name: str, run: str, steps: int | None = None) -> list[str]:
    data = "digits" if "ddp" in name else "texts"
    return [
        f"{name}.py", "--data", f"{data}.jsonl", "--commitment", f"{data}.json", "--run-dir", run, "--out",
        f"{run}-model", "--steps", str(steps or STEPS[name]),
    ]  # fmt: skip


def _launcher(count: int = 2) -> list[str]:
    return [sys.executable, "-P", "-m", "pot.recording.launch", str(count)]


def _start(folder: Path, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=_environment(**more), capture_output=True, text=True, check=False, timeout=300
    )


def _write(folder: Path, name: str, records: list[Any], view: str) -> None:
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(canonical_bytes(record) + b"\n" for record in records))
    write_committed(commit([path], view, "training"), folder / f"{name}.json")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    generator = np.random.default_rng(5)
    centres = generator.integers(0, 17, size=(10, 64))
    images = [np.clip(centres[n % 10] + generator.integers(-3, 4, 64), 0, 16).reshape(8, 8) for n in range(330)]
    _write(folder, "digits", [{"image": i.tolist(), "label": n % 10} for n, i in enumerate(images)], "pixels/1")
    words = ["a", "batch", "data", "model", "of", "record", "step", "the", "train"]
    chosen = random.Random(5)
    _write(folder, "texts", [{"text": f"{' '.join(chosen.choices(words, k=9))} {n}"} for n in range(230)], "text/1")
    _write(folder, "numbers", [{"number": number} for number in range(40)], "json/1")
    for name in STEPS:
        shutil.copyfile(ROOT / "examples" / f"{name}.py", folder / f"{name}.py")
    for name in ("meeting_processes", "three_processes"):
        shutil.copyfile(ROOT / "tests" / "simulator" / f"{name}.py", folder / f"{name}.py")
    return folder


def _kill_all(folder: Path, command: list[str], run: str) -> None:
    """SIGKILL to every process once 50 steps are recorded."""
    process = subprocess.Popen(
        command, cwd=folder, env=_environment(), stderr=subprocess.DEVNULL, start_new_session=True
    )  # fmt: skip
    transcript = folder / run / "transcript.jsonl"
    deadline = time.monotonic() + 240
    while not transcript.exists() or transcript.read_bytes().count(b'"type":"step"') < 50:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _whole_and_killed(folder: Path, name: str, launcher: list[str]) -> tuple[Path, Path]:
    """Two runs of one pre-commitment and nonce: one in one go, one killed and started again."""
    run, whole = folder / f"{name}-run", folder / f"{name}-whole"
    command = _command(name, run.name)
    done = _start(folder, [*launcher, *command])
    assert done.returncode == 0, done.stderr
    run.rename(whole)
    (folder / f"{run.name}-model").rename(folder / f"{whole.name}-model")
    run.mkdir()
    for kept in ("precommit.json", "nonce.json"):
        shutil.copyfile(whole / kept, run / kept)
    shutil.copytree(whole / "commitments", run / "commitments")
    _kill_all(folder, [*_launcher(), *command], run.name)
    again = _start(folder, [*_launcher(), *command])
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("resuming") == 1
    return whole, run


def _weights(run: Path) -> bytes:
    return (run.parent / f"{run.name}-model" / "model.safetensors").read_bytes()


def _replay(run: Path, data: str, number: int) -> Replay:
    precommit, _, chain = load_run(run)
    nonce = json.loads((run / "nonce.json").read_text())["nonce"]
    replayer = Replayer(run, precommit, nonce, [run.parent / f"{data}.jsonl"], run.parent)
    return replayer.segment(chain.segments[number])


def test_ddp_is_recorded_resumed_and_replayed(program: Path) -> None:
    whole, run = _whole_and_killed(program, "train_ddp", _launcher())
    precommit, transcript, chain = load_run(run)
    assert precommit.layout is not None
    assert (precommit.layout.processes, precommit.layout.sharding) == ("2", "replicated")
    assert (precommit.order.batch, precommit.order.micro) == ("32", "16")
    assert (chain.problems, len(chain.segments)) == ((), 6)
    assert b'"type":"resume"' in transcript.data
    assert _weights(run) == _weights(whole)
    assert tensors_digest("model", entries_from_safetensors(_weights(run))) == chain.end.model_blake3
    assert load_run(whole)[2].end.state_blake3 == chain.end.state_blake3
    state = json.loads((run / "checkpoints/step-000120/state.json").read_text())
    assert state["rng"]["ranks"][0]["torch"] != state["rng"]["ranks"][1]["torch"]  # each draws its own dropout
    found = _replay(run, "digits", random.Random(11).randrange(6))
    assert (found.outcome, found.detail) == ("MATCH", "")


def test_fsdp_is_recorded_resumed_and_replayed(program: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    whole, run = _whole_and_killed(program, "train_fsdp", torchrun)
    precommit, _, chain = load_run(run)
    assert precommit.layout is not None
    assert precommit.layout.sharding == "rows"
    assert (chain.problems, len(chain.segments), chain.gaps) == ((), 6, ())
    assert [len(segment.roots) for segment in chain.segments] == [1, 1, 1, 1, 1, 0]
    assert _weights(run) == _weights(whole)
    done = _start(program, [sys.executable, "-c", WHOLE, f"{run.name}-model/model.safetensors"])
    assert done.stdout.strip() == chain.end.model_blake3, done.stderr
    assert tensors_digest("model", entries_from_safetensors(_weights(run))) != chain.end.model_blake3
    last = chain.segments[-1].end_state
    assert len(component_files(last.files, "optimizer")) == 2
    opened = open_checkpoint(run, last)  # what screening and tolerance read
    assert sharded_digest("model", list(opened.model.values()), 2) == chain.end.model_blake3
    assert opened.groups is not None
    _check_released(run)
    found = _replay(run, "texts", random.Random(12).randrange(6))
    assert (found.outcome, found.detail) == ("MATCH", "")


def _check_released(run: Path) -> None:
    """The verdict computes the digest of rows from the whole released weights."""
    model = run.parent / f"{run.name}-model"
    developer = generate()
    certify(model, run, developer)
    policy = {
        "version": "pot/policy/v1",
        "roles": {"developer": [{"name": "Acme", "public_key": developer.public.pem().decode()}]},
        "require": [{"claim": "training-provenance", "level": "committed"}],
    }
    read = read_policy(json.dumps(policy).encode())
    report = verify(read_release(model), read)
    assert report.verdict == "PASS"
    assert [f.status for f in report.findings if f.code == "released-weights"] == ["passed"]
    other = run.parent / "other-model"
    other.mkdir()
    (other / "model.safetensors").write_bytes(_weights(run)[:-1] + b"\x55")
    with pytest.raises(Refused, match="the released weights are not those at the end of the transcript"):
        certify(other, run, developer)


def test_a_process_that_trains_with_other_data_is_caught(program: Path) -> None:
    """The second process turns labels round where a variable says so that no record of the environment names."""
    script = (program / "train_ddp.py").read_text()
    line = "            loss = cross_entropy(model(images), labels)\n"
    turned = '            labels = 9 - labels if rank and "TURNED" in os.environ else labels\n'
    cheating = script.replace("import json\n", "import json\nimport os\n").replace(line, turned + line)
    (program / "cheat_ddp.py").write_text(cheating)
    done = _start(program, [*_launcher(), *_command("cheat_ddp", "cheat", 40)], TURNED="yes")
    assert done.returncode == 0, done.stderr
    assert load_run(program / "cheat")[2].problems == ()  # the transcript shows nothing
    found = _replay(program / "cheat", "digits", 1)
    assert found.outcome == "MISMATCH"
    assert found.detail.startswith("step 22: loss committed")  # the first's loss, after one update of the second's
    assert "first differing tensor" in found.detail


@pytest.fixture(scope="module")
def meetings(program: Path) -> Path:
    done = _start(program, [*_launcher(), "meeting_processes.py"])
    assert done.returncode == 0, done.stderr
    return program


def test_processes_that_do_not_agree_all_stop_with_one_sentence(meetings: Path) -> None:
    program = meetings
    first, second = (json.loads((program / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert {name: said.replace(": process 1: ", ": ") for name, said in first.items()} == second
    refused = {
        "apart": "Refused: record: process 1 has other weights after step 2 than process 0",
        "normalised rows": "Refused: record: process 1 has other weights after step 2 than process 0",
        "other configuration": "Refused: begin: process 1 has another configuration than process 0: rate: 0, now 1",
        "no data": "UsageError: begin: commitments= must list",
        "sharding": 'UsageError: record: the processes hold the model "rows", begun was the run with sharding="repl',
        "stream": "UsageError: begin: a stream can be recorded by one process only",
        "full first": "EnvironmentFailure: full first/",
        "full rows": "EnvironmentFailure: full rows/checkpoints/step-000004: cannot be written by process 1:",
        "bent again": "Refused: process 1: bent/checkpoints/step-000004/model-00001-of-00002.safetensors: not the",
    }
    for name, sentence in refused.items():
        assert first[name].startswith(sentence), first[name]
    assert "File too large" in first["full first"]  # the writer's files or the transcript, whichever came first
    finished = {name for name, said in first.items() if said == "done"}
    assert finished == {
        "accumulated",
        "normalised",
        "gap",
        "bent",
        "full first again",
        "full rows again",
        "frozen",
        "frozen again",
    }
    assert len(first) == len(refused) + len(finished)


def test_what_the_meetings_left_is_whole(meetings: Path) -> None:
    """Gaps stand in the transcript, and a failed run can be gone on with: nothing half-written counts."""
    precommit, _, chain = load_run(meetings / "accumulated")
    assert (precommit.order.batch, precommit.order.micro, chain.problems) == ("16", "4", ())
    assert load_run(meetings / "normalised")[2].problems == ()
    _, _, chain = load_run(meetings / "gap")
    assert chain.problems == ()
    assert [gap.step for gap in chain.gaps] == [4]
    assert "process 1" in chain.gaps[0].reason
    for name in ("full rows", "full first", "frozen"):
        _, transcript, chain = load_run(meetings / name)
        assert chain.problems == (), name
        assert (transcript.data.count(b'"type":"resume"'), len(chain.forks)) == (1, 0)
        assert not list((meetings / name / "checkpoints").glob(".*")), name
    files = {Path(file.path).name for file in chain.segments[-1].end_state.files}
    assert files == {
        "state.json",
        "scheduler.json",
        *(f"{name}-0000{rank}-of-00002.safetensors" for name in ("model", "optimizer") for rank in (0, 1)),
    }
    assert "frozen" in chain.segments[-1].end_state.components


def test_more_than_two_processes_add_in_their_order(program: Path) -> None:
    """DDP lays out its buckets anew after its first step: without the hook a resumed run parts from a whole one."""
    done = _start(program, [*_launcher(3), "three_processes.py"])
    assert done.returncode == 0, done.stderr
    assert json.loads((program / "sums.json").read_text()) == {"any": False, "ordered": True}


def test_a_group_that_begin_did_not_see(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from pot import begin, record

    options: dict[str, Any] = {"commitments": [program / "numbers.json"], "config": {"batch_size": 4, "steps": 8}}
    model = torch.nn.Linear(2, 2)
    begun = begin(tmp_path / "run", **options)
    monkeypatch.setattr("pot.recording.recorder.world_size", lambda: 2)
    with pytest.raises(UsageError, match=r"call begin\(\) after torch.distributed.init_process_group"):
        record(begun, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_replay_by_another_number_of_processes_stops(
    tmp_path: Path, meetings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pot import begin

    run = tmp_path / "staged"
    run.mkdir()
    (tmp_path / "out").mkdir()
    for name in ("precommit.json", "nonce.json"):
        shutil.copyfile(meetings / "accumulated" / name, run / name)
    monkeypatch.setenv("POT_REPLAY", "0:2")
    monkeypatch.setenv("POT_REPLAY_RUN", str(run))
    monkeypatch.setenv("POT_REPLAY_OUT", str(tmp_path / "out"))
    with pytest.raises(Refused, match="the program trains with 1 processes, committed are 2"):
        begin(tmp_path / "run", commitments=[meetings / "numbers.json"], config={"batch_size": 4, "steps": 5})
    assert (tmp_path / "out" / "disagreement.json").exists()
