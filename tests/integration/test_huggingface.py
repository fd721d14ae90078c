"""Hugging Face's Trainer: killed, resumed, replayed, and the same weights as without the recorder."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from trained_examples import Example, begun_alike, cut_before_end, write_texts
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from pot import begin
from pot.commitments.order import batch_records
from pot.errors import MissingExtra, UsageError
from pot.recording.begin import Begun
from pot.recording.checking.finished import load_run
from pot.recording.huggingface import record_trainer, trainer_options

SIZES = {"vocab_size": 64, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
RECORDS = 26


def test_a_killed_trainer_goes_on_and_replays(tmp_path: Path) -> None:
    write_texts(tmp_path)
    example = Example(tmp_path, "train_hf.py")
    example.kill("run", 120, after=50)
    assert "resuming run after step 40 of 120" in example.finish("run", 120)
    chain = load_run(tmp_path / "run")[2]
    assert len(chain.segments) == 6
    assert example.released("run") == chain.end.model_blake3
    replay = example.replay("run", seed=4)
    assert replay.outcome == "MATCH", replay


class Tokens(torch.utils.data.Dataset[Any]):
    """Records whose augmentation draws from all generators."""

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = int(random.random() * 8) + int(np.random.random() * 8) + int(torch.randint(8, ()))
        ids = (torch.arange(8) * (index + 1) + noise) % 64
        return {"input_ids": ids, "labels": ids}


class Stopped(Exception):
    pass


class Breakdown(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Stops training after a step, as a power cut would: with no chance to tidy up in the loop."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == self.after:
            raise Stopped


def _arguments(folder: Path, **changes: Any) -> Any:
    usual: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": 30, "per_device_train_batch_size": 4, "dataloader_drop_last": True,
        "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "learning_rate": 0.01, "warmup_steps": 3,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "logging_steps": 7,
    }  # fmt: skip
    return TrainingArguments(**{**usual, **changes})


def _trainer(args: Any, begun: Begun, **changes: Any) -> Any:
    torch.manual_seed(begun.torch_seed("init"))
    model = GPT2LMHeadModel(GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0))  # tied embeddings, dropout
    return Trainer(**{"model": model, "args": args, "train_dataset": Tokens(), **changes})


def _begin(run_dir: Path, args: Any) -> Begun:
    commitment = run_dir.parent / "data" / "train.json"
    if not commitment.exists():
        write_texts(commitment.parent, RECORDS)
    return begin(run_dir, commitments=[commitment], checkpoint_every=5, **trainer_options(args))


def _train(run_dir: Path, after: int | None = None, **changes: Any) -> Any:
    args = _arguments(run_dir.parent / "out", **changes)
    begun = _begin(run_dir, args)
    extra = {"eval_dataset": Tokens()} if "eval_strategy" in changes else {}
    trainer = _trainer(args, begun, callbacks=[] if after is None else [Breakdown(after)], **extra)
    with record_trainer(trainer, begun):
        trainer.train()
    return trainer


def _weights(trainer: Any) -> list[torch.Tensor]:
    return [value.clone() for value in trainer.model.state_dict().values()]


def test_a_resumed_trainer_gives_the_weights_of_a_whole_one(tmp_path: Path) -> None:
    """Dropout, augmentation, accumulation, schedule; stopped twice; one of them evaluates, which draws too."""
    whole = _train(tmp_path / "whole")
    begun_alike(tmp_path / "whole", tmp_path / "stopped")
    evaluating = {"eval_strategy": "steps", "eval_steps": 2}
    with pytest.raises(Stopped):
        _train(tmp_path / "stopped", after=12, **evaluating)
    with pytest.raises(Stopped):
        _train(tmp_path / "stopped", after=20, **evaluating)
    stopped = _train(tmp_path / "stopped")
    assert all(torch.equal(one, other) for one, other in zip(_weights(whole), _weights(stopped), strict=True))
    ends = [load_run(tmp_path / name)[2].end for name in ("whole", "stopped")]
    assert ends[0].state_blake3 == ends[1].state_blake3
    assert stopped.state.global_step == whole.state.global_step == 30
    assert stopped.state.epoch == whole.state.epoch == 10.0  # 3 steps an epoch
    rates = [
        [line["learning_rate"] for line in one.state.log_history if "loss" in line][-1] for one in (whole, stopped)
    ]
    assert rates[0] == rates[1]

    cut_before_end(tmp_path / "stopped")
    ended = _train(tmp_path / "stopped")
    assert all(torch.equal(one, other) for one, other in zip(_weights(whole), _weights(ended), strict=True))
    assert load_run(tmp_path / "stopped")[2].end.state_blake3 == ends[0].state_blake3


class Fixed(Trainer):  # type: ignore[misc, unused-ignore]
    """A Trainer without a recorder, on batches that were made before."""

    batches: Any = None

    def get_train_dataloader(self) -> Any:
        return self.batches


class Prepared:
    """The micro-batches of an epoch at a time, fetched when they are asked for, as the recorder does."""

    def __init__(self, begun: Begun) -> None:
        self.dataset = Tokens()
        self.begun = begun
        self.step = 0

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[Any]:
        for _ in range(3):
            self.step += 1
            numbers = batch_records(self.begun.seed, RECORDS, 8, self.step)[2]
            for start in (0, 4):
                records = [self.dataset[number] for number in numbers[start : start + 4]]
                yield {key: torch.stack([record[key] for record in records]) for key in records[0]}


def test_weights_are_the_same_with_and_without_the_recorder(tmp_path: Path) -> None:
    recorded = _train(tmp_path / "run")
    args = _arguments(tmp_path / "out")
    begun = _begin(begun_alike(tmp_path / "run", tmp_path / "again"), args)
    torch.manual_seed(begun.torch_seed("init"))
    plain = Fixed(model=GPT2LMHeadModel(GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0)), args=args)
    plain.batches = Prepared(begun)
    random.seed(begun.torch_seed("trainer/python"))  # what the recorder does when training begins
    np.random.seed(begun.torch_seed("trainer/numpy") & 0xFFFFFFFF)
    torch.manual_seed(begun.torch_seed("trainer/torch"))
    plain.train()
    begun.close()
    for one, other in zip(_weights(recorded), _weights(plain), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_recorded_is_refused_in_a_sentence(tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "auto_find_batch_size would change the committed batch size": {"auto_find_batch_size": True},
        "sampling strategy group_by_length would not be used": {"train_sampling_strategy": "group_by_length"},
        "load_best_model_at_end releases other weights": {
            "load_best_model_at_end": True, "metric_for_best_model": "loss", "eval_strategy": "steps",
            "save_strategy": "steps", "save_steps": 7,
        },
        "set dataloader_drop_last=True to say so": {"dataloader_drop_last": False},
        "gradient_accumulation_steps is 4, committed is accumulate=2": {"gradient_accumulation_steps": 4},
        "per_device_train_batch_size is 2, committed is 4": {"per_device_train_batch_size": 2},
    }  # fmt: skip
    for number, (sentence, changes) in enumerate(cases.items()):
        begun = _begin(tmp_path / str(number), _arguments(tmp_path / "out"))
        args = _arguments(tmp_path / "out", **changes)
        trainer = _trainer(args, begun, **({"eval_dataset": Tokens()} if "eval_strategy" in changes else {}))
        with pytest.raises(UsageError, match=sentence):
            record_trainer(trainer, begun)


def test_a_trainer_that_does_otherwise_is_stopped_at_its_beginning(tmp_path: Path) -> None:
    begun = _begin(tmp_path / "run", _arguments(tmp_path / "out"))
    trainer = _trainer(_arguments(tmp_path / "out", max_steps=31), begun)
    with pytest.raises(UsageError, match="will take 31 steps, committed are 30"), record_trainer(trainer, begun):
        trainer.train()

    begun = _begin(tmp_path / "weighted", _arguments(tmp_path / "out"))
    trainer = _trainer(_arguments(tmp_path / "out"), begun)
    trainer._get_train_sampler = lambda *_: torch.utils.data.WeightedRandomSampler([1.0] * RECORDS, RECORDS)
    with pytest.raises(UsageError, match="WeightedRandomSampler would not be used"), record_trainer(trainer, begun):
        trainer.train()


class Lines(torch.utils.data.IterableDataset[Any]):
    """20 records without numbers."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(20):
            ids = torch.arange(8) * (index + 1) % 64
            yield {"input_ids": ids, "labels": ids}


def test_an_iterable_dataset_is_recorded_as_a_stream(tmp_path: Path) -> None:
    def train(run_dir: Path, after: int | None = None) -> Any:
        args = _arguments(tmp_path / "out", max_steps=11, gradient_accumulation_steps=1)
        commitment = write_texts(tmp_path / "data", 20)
        begun = begin(run_dir, commitments=[commitment], checkpoint_every=3, stream=True, **trainer_options(args))
        trainer = _trainer(args, begun, train_dataset=Lines(), callbacks=[] if after is None else [Breakdown(after)])
        with record_trainer(trainer, begun):
            trainer.train()
        return trainer

    whole = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(begun_alike(tmp_path / "whole", tmp_path / "stopped"), after=8)
    stopped = train(tmp_path / "stopped")
    assert all(torch.equal(one, other) for one, other in zip(_weights(whole), _weights(stopped), strict=True))
    steps = [event for event in load_run(tmp_path / "stopped")[1].events if event.type == "step"]
    assert {int(event.records) for event in steps} == {4}
    assert max(int(event.epoch) for event in steps) == 2  # five steps in 20 records


def test_an_adapter_is_recorded_apart_from_its_base_for_whole_epochs(tmp_path: Path) -> None:
    args = _arguments(tmp_path / "out", max_steps=-1, num_train_epochs=2, bf16=True)
    begun = _begin(tmp_path / "run", args)
    torch.manual_seed(begun.torch_seed("init"))
    base = GPT2LMHeadModel(GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    trainer = _trainer(args, begun, model=model)
    with record_trainer(trainer, begun, frozen_apart=True) as recorded:
        trainer.train()
    assert recorded.run is not None
    assert recorded.run.done == trainer.state.global_step == 6
    precommit, _, chain = load_run(tmp_path / "run")
    assert precommit.config["epochs"] == 2
    assert set(chain.segments[-1].end_state.components) > {"frozen", "model", "optimizer", "scheduler"}
    adapter = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    written = load_file(tmp_path / "run" / "checkpoints" / "step-000006" / "model.safetensors")
    assert adapter.keys() == written.keys()
    assert all(torch.equal(adapter[name], written[name]) for name in adapter)


def test_a_stream_is_not_accumulated(tmp_path: Path) -> None:
    options = trainer_options(_arguments(tmp_path / "out"))
    with pytest.raises(UsageError, match="of a stream whole steps are recorded"):
        begin(tmp_path / "run", commitments=[write_texts(tmp_path / "data", 20)], stream=True, **options)


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = _arguments(tmp_path / "out")
    for _ in range(2):  # the run folder is not held
        begun = _begin(tmp_path / "run", args)
        trainer = _trainer(args, begun)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "transformers", None)
            with pytest.raises(MissingExtra, match=r"needs the extra \[hf\]"):
                record_trainer(trainer, begun)
