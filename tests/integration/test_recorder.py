"""The recorder around real PyTorch training: bits, crashes, replays. About two minutes, most of it importing torch."""

from __future__ import annotations

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

from pot.audit.audit import audit
from pot.audit.challenges.challenge import new_challenge
from pot.canonical import canonical_bytes
from pot.commitments.state import entries_from_safetensors, tensors_digest
from pot.data.commit import commit, write_committed
from pot.errors import Refused, UsageError
from pot.recording.checking.finished import load_run

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

ROOT = Path(__file__).resolve().parent.parent.parent
CLASSES = 10


def _write_data(folder: Path, count: int) -> None:
    """Separable blobs in the digits' format: no download, no scikit-learn."""
    generator = np.random.default_rng(3)
    centres = generator.integers(0, 17, size=(CLASSES, 64))
    lines = []
    for number in range(count):
        label = number % CLASSES
        image = np.clip(centres[label] + generator.integers(-3, 4, size=64), 0, 16).reshape(8, 8)
        lines.append(canonical_bytes({"image": image.tolist(), "label": label}) + b"\n")
    (folder / "train.jsonl").write_bytes(b"".join(lines))
    write_committed(commit([folder / "train.jsonl"], "pixels/1", "training"), folder / "train.json")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    _write_data(folder, 300)
    shutil.copyfile(ROOT / "examples" / "train_digits.py", folder / "train_digits.py")
    return folder


def _command(name: str, steps: int = 150) -> list[str]:
    return [
        sys.executable, "train_digits.py", "--data", "train.jsonl", "--commitment", "train.json", "--run", name,
        "--out", f"{name}-model", "--steps", str(steps),
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _start(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(name), cwd=folder, env=_environment(), capture_output=True, text=True, check=False)


def test_killed_run_continues_and_replays_over_more_than_100_steps(program: Path) -> None:
    """SIGKILL, resume, the chain holds, and segments before, around and after the kill replay bit by bit."""
    process = subprocess.Popen(_command("killed"), cwd=program, env=_environment(), stderr=subprocess.DEVNULL)
    transcript = program / "killed" / "transcript.jsonl"
    deadline = time.monotonic() + 120
    while not transcript.exists() or transcript.read_bytes().count(b'"type":"step"') < 60:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    with transcript.open("ab") as stream:
        stream.write(b'{"torn')

    done = _start(program, "killed")
    assert done.returncode == 0, done.stderr
    assert "dropped" in done.stderr

    precommit, recorded, chain = load_run(program / "killed")
    assert len(chain.segments) == 6
    assert b'"type":"resume"' in recorded.data
    released = (program / "killed-model" / "model.safetensors").read_bytes()
    assert tensors_digest("model", entries_from_safetensors(released)) == chain.end.model_blake3

    challenge = new_challenge(precommit.sha256(), recorded.sha256(), 6, forged="0.1", detect="1")
    assert len(challenge.chosen) == 6  # all of them: 150 steps
    result = audit(program / "killed", challenge, [program / "train.jsonl"], program, workers=2)
    assert [unit.outcome for unit in result.replays] == ["MATCH"] * 6
    assert result.init == "MATCH"
    assert result.datasets == (precommit.data[0].commitment_sha256,)
    assert result.points == "NOT_CHECKED"

    again = _start(program, "killed")
    assert again.returncode != 0
    assert "this run is complete" in again.stderr


def test_a_killed_run_and_a_whole_one_give_the_same_weights(tmp_path: Path) -> None:
    """Same pre-commitment and nonce, once in one go, once stopped three times: dropout, momentum, RNG and all."""
    whole = _train(tmp_path / "whole", stops=())
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    (tmp_path / "stopped" / "transcript.jsonl").unlink()
    shutil.rmtree(tmp_path / "stopped" / "checkpoints")
    for stop in (3, 47, 90, None):
        stopped = _train(tmp_path / "stopped", stops=() if stop is None else (stop,))
    for one, other in zip(whole, stopped, strict=True):
        assert torch.equal(one, other)
    ends = [load_run(tmp_path / name)[2].end for name in ("whole", "stopped")]
    assert ends[0].state_blake3 == ends[1].state_blake3


class Noisy(torch.utils.data.Dataset):
    """Records whose augmentation draws from Python's and NumPy's generators."""

    def __init__(self, count: int = 60) -> None:
        self.values = torch.arange(count * 6, dtype=torch.float32).reshape(count, 6) / (count * 6)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = random.random() + float(np.random.random())
        return self.values[index] + noise / 100, torch.tensor(float(index % 2))


def _model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
    )


def _update(model: Any, optimizer: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(inputs).squeeze(1), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def _committed(folder: Path, count: int = 60) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "noisy.jsonl"
    path.write_bytes(b"".join(canonical_bytes({"id": number}) + b"\n" for number in range(count)))
    write_committed(commit([path], "json/1", "training"), folder / "noisy.json")
    return folder / "noisy.json"


def _train(run_dir: Path, stops: tuple[int, ...], workers: int = 0) -> list[torch.Tensor]:
    from pot import begin, record

    commitment = _committed(run_dir.parent / "data")
    config = {"lr": 0.01, "batch_size": 8, "steps": 120, "checkpoint_every": 10}
    begun = begin(run_dir, commitments=[commitment], config=config)
    torch.manual_seed(begun.torch_seed("init"))
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 30, gamma=0.5)
    loader = torch.utils.data.DataLoader(Noisy(), batch_size=8, num_workers=workers)
    with record(begun, model=model, optimizer=optimizer, scheduler=schedule, data=loader) as run:
        for batch in run.batches(loader):
            loss = _update(model, optimizer, batch)
            schedule.step()
            run.step(loss=loss)
            if run.done in stops:
                break
    return [value.clone() for value in model.state_dict().values()]


def test_workers_resume_to_the_same_weights(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole", stops=(), workers=2)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    (tmp_path / "stopped" / "transcript.jsonl").unlink()
    shutil.rmtree(tmp_path / "stopped" / "checkpoints")
    _train(tmp_path / "stopped", stops=(55,), workers=2)
    stopped = _train(tmp_path / "stopped", stops=(), workers=1)
    assert all(torch.equal(one, other) for one, other in zip(whole, stopped, strict=True))


def test_weights_are_the_same_with_and_without_the_recorder(tmp_path: Path) -> None:
    from pot import record
    from pot.recording.precommit import Precommit

    def seeded() -> tuple[Any, Any]:
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        model = _model()
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    model, optimizer = seeded()
    loader = torch.utils.data.DataLoader(Noisy(), batch_size=8)
    config = {"steps": 110, "checkpoint_every": 7}
    options = {"data": loader, "config": config, "commitments": [_committed(tmp_path / "data")]}
    with record(tmp_path / "run", model=model, optimizer=optimizer, **options) as run:
        for batch in run.batches(loader):
            run.step(loss=_update(model, optimizer, batch))

    precommit = Precommit.from_bytes((tmp_path / "run" / "precommit.json").read_bytes(), what="p")
    plain, plain_optimizer = seeded()
    dataset = Noisy()
    from pot.commitments.order import batch_records

    assert precommit.order.batch == "8"
    for step in range(1, 111):
        records = batch_records(run.begun.seed, 60, 8, step)[2]
        batch = torch.utils.data.default_collate([dataset[record] for record in records])
        _update(plain, plain_optimizer, batch)
    assert run.done == 110
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_misuse_is_one_sentence(tmp_path: Path) -> None:
    from pot import record

    commitment = _committed(tmp_path / "data")
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader(Noisy(), batch_size=8)
    common: dict[str, Any] = {"commitments": [commitment], "steps": 4}
    with pytest.raises(UsageError, match="model= and optimizer=, or state="):
        record(tmp_path / "a", data=loader, **common)
    short = torch.utils.data.DataLoader(Noisy(59), batch_size=8)
    with pytest.raises(UsageError, match="59 records, its commitments 60"):
        record(tmp_path / "b", model=model, optimizer=optimizer, data=short, **common)
    stranger = torch.optim.SGD(_model().parameters(), lr=0.1)
    with pytest.raises(UsageError, match="parameter that the model does not have"):
        record(tmp_path / "c", model=model, optimizer=stranger, data=loader, **common)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(UsageError, match="does not follow from the number of steps"):
        record(tmp_path / "d", model=model, optimizer=optimizer, scheduler=plateau, data=loader, **common)
    with record(tmp_path / "e", model=model, optimizer=optimizer, data=loader, **common) as run:
        with pytest.raises(UsageError, match="without a batch"):
            run.step(loss=1.0)
        with pytest.raises(UsageError, match=r"run\.step\(\) was not called"):
            list(run.batches(loader))
    with record(tmp_path / "f", model=model, optimizer=optimizer, data=loader, **common) as run:
        next(run.batches(loader))
        with pytest.raises(UsageError, match="the loss is nan"):
            run.step(loss=float("nan"))


class Stream(torch.utils.data.IterableDataset):
    """Records without numbers, although it says how many."""

    def __len__(self) -> int:
        return 60

    def __iter__(self) -> Any:
        return iter([])


def test_loaders_whose_wishes_would_be_passed_over_are_refused(tmp_path: Path) -> None:
    from pot import record

    loader = torch.utils.data.DataLoader
    weighted = torch.utils.data.WeightedRandomSampler([1.0] * 60, 60)
    cases = {
        "iterable dataset has no records by number": loader(Stream(), batch_size=8),
        "WeightedRandomSampler would not be used": loader(Noisy(), batch_size=8, sampler=weighted),
        "the loader's list would not be used": loader(Noisy(), batch_sampler=[[1, 2], [3, 4]]),
    }
    model = _model()
    common: dict[str, Any] = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "steps": 4}
    common["commitments"] = [_committed(tmp_path / "data")]
    for number, (sentence, data) in enumerate(cases.items()):
        with pytest.raises(UsageError, match=sentence):
            record(tmp_path / str(number), data=data, **common)
    shuffled = loader(Noisy(), batch_size=8, shuffle=True)  # any order will do: ours is one
    other = pytest.raises(UsageError, match="batch_size is 4, committed is 8")
    with record(tmp_path / "run", data=shuffled, **common) as run, other:
        next(run.batches(loader(Noisy(), batch_size=4)))


def test_a_step_without_the_optimizers_step_is_refused_at_once(tmp_path: Path) -> None:
    """Gradients are no part of the state: a checkpoint between a loss and its update could not be resumed from."""
    from pot import record

    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = torch.utils.data.DataLoader(Noisy(), batch_size=8)
    options = {"data": loader, "commitments": [_committed(tmp_path / "data")], "steps": 4}
    with record(tmp_path / "run", model=model, optimizer=optimizer, **options) as run:
        batch = next(run.batches(loader))
        model(batch[0]).sum().backward()
        with pytest.raises(UsageError, match="the optimizer did not step on this batch"):
            run.step()
        optimizer.step()
        with pytest.raises(UsageError, match="the loss is a Tensor, not one number"):
            run.step(loss=torch.ones(3))
        run.step(loss=0.5)
        assert run.done == 1


def test_a_bent_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    _train(tmp_path / "run", stops=(15,))
    path = tmp_path / "run" / "checkpoints" / "step-000010" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refused, match="not the committed file"):
        _train(tmp_path / "run", stops=())
