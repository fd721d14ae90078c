"""`pot run` around scripts that know nothing of pot: whole, killed, replayed, and what it says of misfits."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from attest.bundle import read_release
from attest.certify import certify
from attest.trust.keys import generate
from attest.verdict.policy import read_policy
from attest.verdict.verify import verify
from pot.audit.replaying.replay import Replayer
from pot.canonical import canonical_bytes
from pot.commitments.state import entries_from_safetensors, tensors_digest
from pot.data.commit import commit, write_committed
from pot.recording.checking.finished import load_run
from pot.recording.scripts.attach import OPTIONS_VARIABLE, Attachment

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parent.parent.parent
RECORDS = 300

SMALL = '''
import json, os, sys, time
import shapes
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

MODE = sys.argv[1]
torch.set_num_threads(1)
if MODE == "seeds":
    torch.manual_seed(7)


class Records(Dataset):
    def __init__(self, path):
        self.rows = [json.loads(line) for line in open(path)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        return torch.tensor(self.rows[at]["image"], dtype=torch.float32).flatten() / 16, self.rows[at]["label"]


class Stream(IterableDataset):
    def __init__(self, records):
        self.records = records

    def __iter__(self):
        for at in torch.randperm(len(self.records), generator=torch.Generator().manual_seed(5)).tolist():
            yield self.records[at]


records = Records("train.jsonl")
model = nn.Sequential(nn.Linear(shapes.PIXELS, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
more = [torch.optim.SGD(model[:1].parameters(), lr=0.1)] if MODE == "optimizers" else []
sampler = WeightedRandomSampler([1.0] * len(records), len(records)) if MODE == "sampler" else None
if MODE == "stream":
    loader = DataLoader(Stream(records), batch_size=20)
else:
    loader = DataLoader(records, batch_size=10 if MODE == "counts" else 20, sampler=sampler, shuffle=sampler is None)
held_out = DataLoader([records[at] for at in range(50)], batch_size=25)
scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=7) if MODE == "scaled" else None
settings = json.load(open("settings.json")) if MODE == "seeds" else {}
if MODE == "setting":
    torch.use_deterministic_algorithms(True)


def evaluate():
    model.eval()
    with torch.no_grad():
        found = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in held_out)
    model.train()
    return found


def update(images, labels, share=1):
    loss = nn.functional.cross_entropy(model(images), labels)
    (loss / share if scaler is None else scaler.scale(loss)).backward()


def counted():
    """Two batches a step, a rate that follows from the script's own counter, a loop that ends by it."""
    taken = 0
    while taken < 2 * 40:
        for images, labels in loader:
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (1 + taken // 2)
            update(images, labels, share=2)
            taken += 1
            if taken % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()
            if taken == int(os.environ.get("STOP_AT", "0")):
                raise RuntimeError("the power is gone")
            if taken == 2 * 40:
                break
        print("right", evaluate())


def ordinary(epochs):
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    shown = next(iter(loader))[0].shape
    taken = 0
    for epoch in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            update(images, labels)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            taken += 1
            time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
            if taken == int(os.environ.get("STOP_AT", "0")):
                if MODE == "interrupted":
                    raise KeyboardInterrupt
                sys.exit(5)
        schedule.step()
        print(epoch, shown, evaluate())


counted() if MODE == "counts" else ordinary(2)
if MODE == "tampers":
    with torch.no_grad():
        model[0].weight.zero_()
'''

WARM = """
import json, os, sys
import torch, torch._dynamo
from pot.recording.scripts import attach
for line in sys.stdin:
    wanted = json.loads(line)
    child = os.fork()
    if child == 0:
        out = os.open(wanted["out"], os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update(wanted["variables"])
        code = attach.main(wanted["words"])
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Imports PyTorch once, and records each wanted script in a process of its own, as `pot run` would."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, its commitment and scripts."""
    folder = tmp_path_factory.mktemp("program")
    generator = random.Random(3)
    centres = [[generator.randrange(17) for _ in range(64)] for _ in range(10)]
    lines = []
    for number in range(RECORDS):
        values = [min(16, max(0, value + generator.randrange(-3, 4))) for value in centres[number % 10]]
        image = [values[row : row + 8] for row in range(0, 64, 8)]
        lines.append(canonical_bytes({"image": image, "label": number % 10}) + b"\n")
    (folder / "train.jsonl").write_bytes(b"".join(lines))
    write_committed(commit([folder / "train.jsonl"], "pixels/1", "training"), folder / "train.json")
    shutil.copyfile(ROOT / "examples" / "plain_mlp.py", folder / "plain_mlp.py")
    (folder / "small.py").write_text(SMALL, encoding="utf-8")
    (folder / "shapes.py").write_text("PIXELS = 64\n", encoding="utf-8")
    (folder / "settings.json").write_text("{}", encoding="utf-8")
    return folder


def _words(run: str, script: str, *options: str) -> list[str]:
    common = ["--run", run, "--commitment", "train.json", "--input", "train.jsonl"]
    return [sys.executable, "-m", "attest.cli", "run", *common, *options, "--", "python", *script.split()]


def _environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


def _run(folder: Path, run: str, script: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _words(run, script, *options), cwd=folder, env=_environment(**variables), capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@dataclass
class Ended:
    """How a script ended under the recorder, and what was said."""

    code: int
    report: dict[str, Any]
    output: str


Attach = Callable[..., Ended]


@pytest.fixture(scope="module")
def attach(program: Path) -> Iterator[Attach]:
    """Record the small script in a mode of its own."""
    warm = subprocess.Popen(
        [sys.executable, "-P", "-c", WARM], cwd=program, env=_environment(), text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert warm.stdin is not None
    assert warm.stdout is not None
    ways, answers, number = warm.stdin, warm.stdout, count()

    def start(run: str, mode: str, stop_at: int = 0, **begin: Any) -> Ended:
        at = next(number)
        report, out = program / f"report-{at}.json", program / f"output-{at}.txt"
        options = {"commitments": ["train.json"], "inputs": ["train.jsonl"], "config": {}, "batch_size": 20, **begin}
        variables = {"STOP_AT": str(stop_at), OPTIONS_VARIABLE: Attachment(run, str(report), options).to_text()}
        wanted = {"words": ["small.py", mode], "variables": variables, "out": str(out)}
        ways.write(json.dumps(wanted) + "\n")
        ways.flush()
        code = int(answers.readline())
        return Ended(code, json.loads(report.read_text(encoding="utf-8")), out.read_text(encoding="utf-8"))

    yield start
    warm.stdin.close()
    warm.wait()


def _begun_like(folder: Path, run: str, other: str) -> None:
    """A run directory with the pre-commitment and nonce of another, and nothing done."""
    (folder / other).mkdir()
    for name in ("precommit.json", "nonce.json"):
        shutil.copyfile(folder / run / name, folder / other / name)


def _replay(folder: Path, run: str, segment: int) -> str:
    precommit, transcript, chain = load_run(folder / run)
    nonce = transcript.events[0].model_dump()["nonce"]
    replayer = Replayer(folder / run, precommit, nonce, [folder / "train.jsonl"], folder)
    replay = replayer.segment(chain.segments[segment - 1])
    return f"{replay.outcome} {replay.detail}".strip()


def _whole_chain(folder: Path, run: str) -> Any:
    chain = load_run(folder / run)[2]
    assert not chain.problems
    return chain


MLP = "plain_mlp.py train.jsonl --epochs 12 --out "
MLP_OPTIONS = ("--batch-size", "32", "--epochs", "12", "--checkpoint-every", "20")


@pytest.fixture(scope="module")
def mlp(program: Path) -> subprocess.CompletedProcess[str]:
    """The ordinary script, recorded in one go: 108 steps."""
    return _run(program, "whole", MLP + "model.pt", *MLP_OPTIONS, "--json")


def test_an_unmodified_script_leaves_a_whole_transcript(program: Path, mlp: subprocess.CompletedProcess[str]) -> None:
    assert mlp.returncode == 0, mlp.stderr
    told = json.loads(mlp.stdout)  # the script's own words went to standard error
    assert "epoch 12: loss" in mlp.stderr
    assert (told["step"], told["steps"], told["state"]) == ("108", "108", "complete")
    chain = _whole_chain(program, "whole")
    assert chain.end.model_blake3 == told["model_blake3"]
    released = (program / told["weights"]).read_bytes()
    assert tensors_digest("model", entries_from_safetensors(released)) == chain.end.model_blake3
    precommit = load_run(program / "whole")[0]
    assert precommit.program.launcher == "attach"
    assert precommit.program.command == ("plain_mlp.py", "train.jsonl", "--epochs", "12", "--out", "model.pt")
    assert [file.path for file in precommit.program.files] == ["plain_mlp.py"]
    losses = [float(event.loss) for event in load_run(program / "whole")[1].events if getattr(event, "loss", None)]
    assert len(losses) == 108
    assert losses[-1] < losses[0] / 10
    again = _run(program, "whole", MLP + "model.pt", *MLP_OPTIONS)
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_a_killed_script_goes_on_to_the_same_weights(program: Path, mlp: subprocess.CompletedProcess[str]) -> None:
    assert mlp.returncode == 0, mlp.stderr
    _begun_like(program, "whole", "killed")
    process = subprocess.Popen(
        _words("killed", MLP + "model.pt", *MLP_OPTIONS, "--resume"), cwd=program, env=_environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    transcript = program / "killed" / "transcript.jsonl"
    deadline = time.monotonic() + 120
    while not transcript.exists() or transcript.read_bytes().count(b'"type":"step"') < 50:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = _run(program, "killed", MLP + "model.pt", *MLP_OPTIONS, "--resume")
    assert done.returncode == 0, done.stderr
    assert "passing over" in done.stderr
    chain = _whole_chain(program, "killed")
    assert chain.end.state_blake3 == _whole_chain(program, "whole").end.state_blake3
    assert b'"type":"resume"' in transcript.read_bytes()


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _children(process: int) -> list[int]:
    """The processes that this one has started."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = place.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(words[1]) == process and words[0] != "Z":
            found.append(int(place.parent.name))
    return found


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _hear_signals() -> None:
    """Whoever started the tests in the background may have had some ignored, which children inherit."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"])
def test_a_signal_to_the_command_alone_ends_the_script_too(program: Path, name: str) -> None:
    run, number = f"stopped-{name}", getattr(signal, name)
    options = ("--batch-size", "20", "--steps", "30", "--checkpoint-every", "5", "--resume")
    with (program / f"{run}.txt").open("wb") as told:
        process = subprocess.Popen(
            _words(run, "small.py plain", *options), cwd=program, env=_environment(SECONDS_A_STEP="10"),
            stdout=subprocess.DEVNULL, stderr=told, preexec_fn=_hear_signals,
        )  # fmt: skip
    transcript = program / run / "transcript.jsonl"
    _wait_for(lambda: transcript.exists() and b'"type":"step"' in transcript.read_bytes(), process)
    (script,) = _children(process.pid)
    os.kill(process.pid, number)
    assert process.wait(timeout=60) == (-number if name == "SIGKILL" else 128 + number)
    deadline = time.monotonic() + 60
    while _lives(script):
        assert time.monotonic() < deadline, "the script was left behind"
        time.sleep(0.02)
    assert b'"type":"end"' not in transcript.read_bytes()
    said = (program / f"{run}.txt").read_text()
    assert ("pot: stopped; the same command with --resume goes on" in said) == (name != "SIGKILL")
    if name == "SIGTERM":
        done = _run(program, run, "small.py plain", *options)
        assert done.returncode == 0, done.stderr
        assert b'"type":"resume"' in transcript.read_bytes()
        _whole_chain(program, run)


def test_a_segment_chosen_by_a_seed_replays(program: Path, mlp: subprocess.CompletedProcess[str]) -> None:
    assert mlp.returncode == 0, mlp.stderr
    number = random.Random(11).randrange(2, 7)  # not the first: what is done must be passed over
    assert _replay(program, "whole", number) == "MATCH"


def test_counters_and_accumulation_survive_a_resumption(program: Path, attach: Attach) -> None:
    """The script's own counter makes the rate and ends the loop; 40 steps of two batches, stopped in the 31st."""
    options = {"batch_size": 10, "accumulate": 2, "steps": 40, "checkpoint_every": 10}
    whole = attach("counts", "counts", **options)
    assert whole.code == 0, whole.output
    assert whole.report["notes"] == ["a loader over 50 records (list) was left to itself: not as many are committed"]
    _begun_like(program, "counts", "counts-stopped")
    stopped = attach("counts-stopped", "counts", 61, **options)
    assert stopped.code == 1
    assert "RuntimeError: the power is gone" in stopped.output
    assert "pot/recording" not in stopped.output  # the traceback begins with the script
    assert stopped.report["sentence"] == "the script ended with exit code 1 after step 30 of 40"
    done = attach("counts-stopped", "counts", **options)
    assert done.code == 0, done.output
    ends = [_whole_chain(program, run).end.state_blake3 for run in ("counts", "counts-stopped")]
    assert ends[0] == ends[1]
    assert _replay(program, "counts-stopped", 3) == "MATCH"


def test_a_stream_is_recorded_as_it_comes(program: Path, attach: Attach) -> None:
    options = {"stream": True, "steps": 30, "checkpoint_every": 5}
    whole = attach("stream", "stream", **options)
    assert whole.code == 0, whole.report
    _begun_like(program, "stream", "stream-stopped")
    stopped = attach("stream-stopped", "stream", 23, **options)
    assert (stopped.code, stopped.report["sentence"]) == (1, "the script ended with exit code 5 after step 22 of 30")
    done = attach("stream-stopped", "stream", **options)
    assert done.code == 0, done.report
    ends = [_whole_chain(program, run).end.state_blake3 for run in ("stream", "stream-stopped")]
    assert ends[0] == ends[1]
    assert _replay(program, "stream", 4) == "MATCH"  # from the end of an epoch on


def test_a_scaler_is_recorded_and_goes_on(program: Path, attach: Attach) -> None:
    """Its scale grows every seven steps: one that counted the steps passed over, or forgot them, would differ."""
    options = {"steps": 30, "checkpoint_every": 5}
    whole = attach("scaled", "scaled", **options)
    assert whole.code == 0, whole.output
    _begun_like(program, "scaled", "scaled-stopped")
    assert attach("scaled-stopped", "scaled", 18, **options).code == 1
    done = attach("scaled-stopped", "scaled", **options)
    assert done.code == 0, done.output
    chains = [_whole_chain(program, run) for run in ("scaled", "scaled-stopped")]
    assert chains[0].end.state_blake3 == chains[1].end.state_blake3
    assert "scaler" in chains[0].segments[0].end_state.components


def test_an_interrupted_script_can_be_gone_on_with(program: Path, attach: Attach) -> None:
    options = {"steps": 30, "checkpoint_every": 5}
    stopped = attach("interrupted", "interrupted", 12, **options)
    assert (stopped.code, stopped.report["sentence"]) == (130, None)
    done = attach("interrupted", "interrupted", **options)
    assert done.code == 0, done.output
    assert "resuming interrupted after step 10 of 30, 1 steps are repeated" in done.output
    _whole_chain(program, "interrupted")


def test_the_same_promise_gives_the_same_weights_twice(program: Path, attach: Attach) -> None:
    for run in ("once", "twice"):
        if run == "twice":
            _begun_like(program, "once", run)
        assert attach(run, "plain", steps=30).code == 0
    ends = [_whole_chain(program, run).end for run in ("once", "twice")]
    files = load_run(program / "once")[0].program.files
    assert [file.path for file in files] == ["shapes.py", "small.py"]  # what the script imports is committed too
    assert ends[0].model_blake3 == ends[1].model_blake3


READS = "the script reads settings.json, which is not committed, so a replay lacks it: name it with --input"


def test_what_is_not_the_runs_is_said(program: Path, attach: Attach) -> None:
    """An own seed, and a file that nobody committed to."""
    done = attach("seeds", "seeds", steps=30)
    assert done.code == 0, done.output
    assert done.report["notes"] == [
        "the script sets its own seed (torch.manual_seed): the initial weights follow from it, not from the run's",
        f"{READS} settings.json",
        "a loader over 50 records (list) was left to itself: not as many are committed",
    ]
    assert READS in done.output
    assert (program / "seeds" / "notes.txt").read_text(encoding="utf-8").splitlines() == done.report["notes"]


def test_what_was_said_in_time_is_not_said_again(program: Path) -> None:
    done = _run(program, "once-said", "small.py seeds", "--batch-size", "20", "--steps", "30")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(READS) == 1
    assert "pot: not seen or not the run's own (2, 1 more are told above):" in done.stderr
    assert READS in (program / "once-said" / "notes.txt").read_text(encoding="utf-8")


def test_a_script_that_fails_before_its_run_begins(program: Path) -> None:
    (program / "early.py").write_text("raise RuntimeError('no data')\n", encoding="utf-8")
    for promise, steps in ((["--steps", "7"], "7"), (["--epochs", "3"], "3 epochs")):
        done = _run(program, "early", "early.py", "--batch-size", "20", *promise)
        assert done.returncode == 1, done.stderr
        assert done.stderr.endswith(f"pot: the script ended with exit code 1 after step 0 of {steps}\n")
        assert not (program / "early").exists()


def test_strict_refuses_a_file_that_is_not_committed(program: Path) -> None:
    strict = _run(program, "strict", "small.py seeds", "--batch-size", "20", "--steps", "30", "--strict")
    assert strict.returncode == 1
    assert f"pot run --strict: {READS}" in strict.stderr
    assert "  - the script sets its own seed (torch.manual_seed)" in strict.stderr
    assert "Traceback" not in strict.stderr


Misfit = tuple[str, dict[str, int], int, str]
MISFITS: dict[str, Misfit] = {
    "two-optimizers": (
        "optimizers", {"steps": 30}, 1,
        "the script has 2 optimizers (AdamW, SGD), and one is what can be recorded from outside",
    ),
    "own-sampler": (
        "sampler", {"steps": 30}, 2,
        "the loader's WeightedRandomSampler would not be used, because the order follows from the run's seed",
    ),
    "fewer-steps": ("plain", {"steps": 31}, 3, "the script ended after step 30 of 31: the run is not finished"),
    "more-steps": (
        "plain", {"steps": 29}, 1,
        "the script trains on after step 29, the last one promised; the run is complete up to there",
    ),
    "more-passes": (
        "plain", {"steps": 15}, 1,
        "the script trains on after step 15, the last one promised; the run is complete up to there",
    ),
    "other-batches": ("counts", {"steps": 15}, 2, "the loader's batch_size is 10, committed is 20"),
    "accumulates-less": (
        "plain", {"steps": 5, "accumulate": 3}, 1,
        "the optimizer steps on the batch of step 1; --accumulate says 3",
    ),
    "accumulates-more": (
        "counts", {"steps": 15, "batch_size": 10}, 1,
        "the optimizer did not step on the batch of step 1, and the script takes the next; --accumulate says 1",
    ),
    "late-setting": (
        "setting", {"steps": 30}, 1,
        "changes a setting after it made its first module: torch.deterministic: recorded 'False', here 'True'",
    ),
    "no-loader": (
        "stream", {"steps": 30}, 1,
        "the optimizer steps, but no DataLoader over the 300 committed records gave a batch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_each_misfit_has_its_sentence(program: Path, attach: Attach, name: str) -> None:
    mode, begin, code, sentence = MISFITS[name]
    done = attach(name, mode, **begin)
    assert (done.code, done.report["code"]) == (code, code), done.report
    assert sentence in done.report["sentence"]
    assert "Traceback" not in done.output
    if name.startswith("more"):
        assert _whole_chain(program, name).end.step == str(begin["steps"])


def test_a_model_that_is_changed_afterwards_is_not_the_runs(program: Path, attach: Attach) -> None:
    done = attach("tampers", "tampers", steps=30)
    assert done.code == 0, done.report
    assert done.report["notes"][-1] == (
        "the script changed the model after its last step: the run's weights are those of step 30"
    )


def _without(words: list[str], option: str) -> list[str]:
    at = words.index(option)
    return words[:at] + words[at + 2 :]


BAD: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "no script": (lambda words: words[: words.index("python") + 1], "give the script as in"),
    "module": (lambda words: [*words[: words.index("python") + 1], "-m", "train"], "give the script as in"),
    "mode": (lambda words: [*words[:4], "--mode", "none", *words[4:]], "--mode none: is segment or step"),
    "steps and epochs": (
        lambda words: [*words[:4], "--epochs", "2", *words[4:]],
        "pot: --steps and --epochs: one of them promises how far the script trains",
    ),
    "nonce": (
        lambda words: [*words[:4], "--nonce", "verifer", *words[4:]],
        'nonce is \'verifer\'; it is "self", "verifier", "beacon:quicknet:ROUND" or 64 hex digits',
    ),
    "short nonce": (lambda words: [*words[:4], "--nonce", "ab" * 31, *words[4:]], "or 64 hex digits"),
    "large nonce": (lambda words: [*words[:4], "--nonce", "AB" * 32, *words[4:]], "or 64 lowercase hex digits"),
    "no such beacon": (lambda words: [*words[:4], "--nonce", "beacon:7", *words[4:]], "must name a beacon's coming"),
    "no commitment": (lambda words: _without(words, "--commitment"), "name the commitment of the training data"),
    "no batch size": (lambda words: _without(words, "--batch-size"), "say by --batch-size"),
    "no steps": (lambda words: _without(words, "--steps"), "promise by --steps or --epochs"),
    "absent": (lambda words: [*words[: words.index("python") + 1], "absent.py"], "absent.py: no such script"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_ends_with_2(program: Path, name: str) -> None:
    change, sentence = BAD[name]
    words = change(_words("bad", "small.py plain", "--batch-size", "20", "--steps", "3"))
    ended = subprocess.run(words, cwd=program, env=_environment(), capture_output=True, text=True, check=False)
    assert (ended.returncode, sentence in ended.stderr) == (2, True), ended.stderr
    assert "pot: pot run:" not in ended.stderr
    assert not (program / "bad").exists()


TUNE = """
import json, sys
import torch
from safetensors.torch import load_file
from plain_mlp import Digits

torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 10))
model.load_state_dict(load_file(sys.argv[1]))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for images, labels in torch.utils.data.DataLoader(Digits("train.jsonl"), batch_size=30, shuffle=True):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
"""


def test_a_script_that_starts_from_a_release_extends_its_chain(
    program: Path, mlp: subprocess.CompletedProcess[str]
) -> None:
    assert mlp.returncode == 0, mlp.stderr
    (program / "tune.py").write_text(TUNE, encoding="utf-8")
    developer = generate()
    base, tuned = program / "base", program / "tuned"
    for model, run, parent in ((base, "whole", None), (tuned, "tune", base)):
        if parent is not None:
            options = ("--parent", "base", "--batch-size", "30", "--epochs", "1", "--checkpoint-every", "5")
            done = _run(program, run, "tune.py base/model.safetensors", *options)
            assert done.returncode == 0, done.stderr
        model.mkdir()
        last = max((program / run / "checkpoints").iterdir())
        shutil.copyfile(last / "model.safetensors", model / "model.safetensors")
        certify(model, program / run, developer, parent=parent)
    policy = {
        "version": "pot/policy/v1",
        "roles": {"developer": [{"name": "Acme", "public_key": developer.public.pem().decode()}]},
        "require": [{"claim": "training-provenance", "level": "committed"}],
    }
    report = verify(read_release(tuned), read_policy(json.dumps(policy).encode()))
    assert report.verdict == "PASS", report.reason
    found = next(f for f in report.findings if f.code == "initial-weights" and f.status == "passed")
    assert "parent" in found.detail
    assert [ancestor.model for ancestor in report.lineage] == ["tuned", "base"]

    refused = _run(program, "orphan", "tune.py base/model.safetensors", "--parent", "tuned/.pot", "--batch-size", "30",
                   "--epochs", "1")  # fmt: skip
    assert refused.returncode == 2
    assert "holds 0 certificates of its model" in refused.stderr
    assert not (program / "orphan").exists()
