"""LoRA through peft: the adapter is what is recorded and released, the base is held fast by its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from trained_examples import Example, write_digits, write_texts

from pot import begin, record
from pot.errors import UsageError
from pot.recording.checking.finished import load_run


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """The example's program, run to its end."""
    folder = tmp_path_factory.mktemp("lora")
    write_texts(folder)
    found = Example(folder, "train_lora.py", ("--base", "base.safetensors"))
    found.finish("run", 120)
    return found


def test_an_adapter_is_released_alone_and_replays(example: Example) -> None:
    precommit, transcript, chain = load_run(example.folder / "run")
    assert [file.path for file in precommit.program.data_files] == ["base.safetensors", "train.jsonl"]
    assert len(chain.segments) == 6
    assert example.released("run") == chain.end.model_blake3
    weights = load_file(example.folder / "run-model" / "model.safetensors")
    assert len(weights) == 4
    assert all("lora_" in name for name in weights)
    assert not all(bool((value == 0).all()) for name, value in weights.items() if "lora_B" in name)
    assert transcript.data.count(b'"frozen"') == 7  # in every checkpoint, and a file of it in none
    assert not list((example.folder / "run" / "checkpoints").rglob("frozen*"))
    replay = example.replay("run", seed=8)
    assert replay.outcome == "MATCH", replay


def test_another_base_than_the_committed_one_is_caught_in_a_replay(example: Example) -> None:
    """The program trains on a base that it has changed, unless it is replayed: then the digest of the base differs."""
    script = example.folder / "cheating.py"
    text = (example.folder / "train_lora.py").read_text("utf-8")
    loading = "    base.load_state_dict(load_file(chosen.base))\n"
    assert text.count(loading) == 1
    change = '    if "POT_REPLAY" not in os.environ:\n        base.lm_head.weight.data[0, 0] += 1\n'
    script.write_text(text.replace(loading, loading + change), "utf-8")
    cheating = Example(example.folder, "cheating.py", example.arguments)
    cheating.finish("cheated", 100)
    assert load_run(example.folder / "cheated")[2].problems == ()
    replay = cheating.replay("cheated", seed=9)
    assert replay.outcome == "MISMATCH", replay
    assert "frozen" in replay.detail


def _train(run_dir: Path, change: Any) -> None:
    commitment = write_digits(run_dir.parent / "data", 24)
    begun = begin(run_dir, commitments=[commitment], batch_size=4, steps=12, checkpoint_every=4)
    torch.manual_seed(begun.torch_seed("init"))
    base = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    model: Any = get_peft_model(base, LoraConfig(r=2, target_modules=["0"]))  # type: ignore[arg-type, unused-ignore]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    dataset = torch.utils.data.TensorDataset(torch.arange(96.0).reshape(24, 4) / 96)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    with record(begun, model=model, optimizer=optimizer, data=loader, frozen_apart=True) as run:
        for (inputs,) in run.batches(loader):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
            if run.done == 6:
                change(model)
            run.step()


def test_a_base_that_changes_after_the_start_is_caught_at_the_end(tmp_path: Path) -> None:
    def bend(model: Any) -> None:
        with torch.no_grad():
            model.base_model.model[2].weight[0, 0] += 1

    with pytest.raises(UsageError, match="parameters that no optimizer holds changed during training"):
        _train(tmp_path / "bent", bend)
    assert b'"type":"end"' not in (tmp_path / "bent" / "transcript.jsonl").read_bytes()
    _train(tmp_path / "honest", lambda model: None)
    assert load_run(tmp_path / "honest")[2].problems == ()
