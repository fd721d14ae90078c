"""Recording Hugging Face's `Trainer`: it keeps its loop, its optimizer, its schedule, its evaluations and its logs.

    begun = begin("run/", commitments=["train.json"], **trainer_options(args))
    ...
    with record_trainer(trainer, begun):
        trainer.train()

Batches come in the committed order, whatever the Trainer's sampler; the generators that it seeds with `args.seed` are
seeded from the run's seed when training begins. After a crash the same command goes on: model, optimizer and schedule
from the run directory, `global_step` and the rest of the epoch to match. The Trainer's own checkpoints are not used.

Spec: `specs/recording.md`. Shows / does not show: see `pot.recording.run`. Written against transformers 5.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from pot.errors import MissingExtra, UsageError
from pot.recording.begin import Begun
from pot.recording.run import Run
from pot.recording.trainer_loop import DrivenRun, HandedOut
from pot.recording.writing.writer import OnError

__all__ = ["RecordedTrainer", "record_trainer", "trainer_options"]

_HYPERPARAMETERS: Final = (
    "optim", "optim_args", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "label_smoothing_factor", "bf16",
    "fp16", "neftune_noise_alpha", "gradient_checkpointing", "activation_checkpointing", "seed",
    "dataloader_num_workers", "torch_compile",
)  # fmt: skip
"""Of `TrainingArguments`, as far as the installed version has them; what is None is left out."""


def trainer_options(args: Any, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `begin` needs from `TrainingArguments`: `config`, `batch_size`, `accumulate`, `steps` where given.

    `config`: more of the configuration. Without `max_steps` the steps follow from `num_train_epochs`, a whole number.
    Raises `UsageError`.
    """
    found: dict[str, Any] = {}
    for name in _HYPERPARAMETERS:
        value = getattr(args, name, None)
        value = getattr(value, "value", value)  # an enumeration's
        if value is not None:
            found[name] = value
    options: dict[str, Any] = {
        "batch_size": args.per_device_train_batch_size,
        "accumulate": args.gradient_accumulation_steps,
    }
    if args.max_steps > 0:
        options["steps"] = args.max_steps
    elif args.num_train_epochs == int(args.num_train_epochs):
        found["epochs"] = int(args.num_train_epochs)
    else:
        raise UsageError(f"record: {args.num_train_epochs} epochs are no whole number; give max_steps")
    return {"config": {**found, **(config or {})}, **options}


def record_trainer(
    trainer: Any, begun: Begun, *, frozen_apart: bool = False, on_error: OnError = "stop"
) -> RecordedTrainer:
    """A context manager in which `trainer.train()` is recorded, resumed or replayed; see `record` for the options.

    Raises `UsageError` for what cannot be recorded, `MissingExtra`.
    """
    try:
        for reason in _obstacles(trainer, begun):
            raise UsageError(f"record_trainer: {reason}")
        return RecordedTrainer(trainer, begun, {"frozen_apart": frozen_apart, "on_error": on_error})
    except BaseException:
        begun.close()
        raise


class RecordedTrainer:
    """A Trainer whose training is recorded while the context is open. Made by `record_trainer`."""

    def __init__(self, trainer: Any, begun: Begun, options: dict[str, Any]) -> None:
        self._trainer = trainer
        self._options = options
        self._driven = DrivenRun(begun)
        self._callback = _callback(self)
        self._own: dict[str, Callable[..., Any]] = {}

    @property
    def run(self) -> Run | None:
        """The run, from the beginning of training on."""
        return self._driven.run

    def __enter__(self) -> Self:
        trainer = self._trainer
        self._own = {name: getattr(trainer, name) for name in ("get_train_dataloader", "training_step")}
        trainer.get_train_dataloader = self._dataloader
        trainer.training_step = self._training_step
        trainer.add_callback(self._callback)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._own:
            delattr(self._trainer, name)
        self._trainer.remove_callback(self._callback)
        self._driven.leave(kind, error, trace)

    def _dataloader(self) -> HandedOut:
        return self._driven.hand_out(self._own["get_train_dataloader"]())

    def _training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = self._own["training_step"](*args, **kwargs)
        if self._trainer.args.logging_nan_inf_filter:  # then the Trainer reads the loss too: it waits for the device
            self._driven.loss(loss)
        return loss

    def _begin(self, state: Any) -> None:
        """Optimizer and schedule exist: record or resume, and let the Trainer count from there."""
        trainer, driven = self._trainer, self._driven
        if state.global_step:
            raise UsageError(
                "record_trainer: the Trainer loaded a checkpoint of its own; leave resume_from_checkpoint out"
            )
        if state.max_steps != driven.steps:
            raise UsageError(
                f"record_trainer: the Trainer will take {state.max_steps} steps, committed are {driven.steps}"
            )
        scaler = getattr(trainer.accelerator, "scaler", None)
        if trainer.args.fp16 and scaler is None:
            raise UsageError("record_trainer: the gradient scaler of fp16 cannot be reached; train with bf16=True")
        _seed(driven.begun)
        optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # Accelerate's wrapper is no state
        run = driven.start(
            model=trainer.model, optimizer=optimizer, scheduler=trainer.lr_scheduler, scaler=scaler, **self._options
        )
        state.global_step = run.done
        for name in ("_globalstep_last_logged", "_initial_global_step"):  # logged means divide by the steps since then
            if hasattr(trainer, name):
                setattr(trainer, name, run.done)

    def _step_end(self, state: Any) -> None:
        self._driven.stepped()
        state.epoch = state.global_step / self._driven.epoch_steps


class _Events:
    """The callback's events; `recorded` is set on its class."""

    recorded: RecordedTrainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self.recorded._begin(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self.recorded._step_end(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self.recorded._driven.settle()


def _callback(recorded: RecordedTrainer) -> Any:
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise MissingExtra("hf", "recording Hugging Face's Trainer") from None
    return type("RecordingCallback", (_Events, TrainerCallback), {"recorded": recorded})()


def _seed(begun: Begun) -> None:
    """What the Trainer does with `args.seed`, from the run's seed: what is drawn in training follows from the nonce."""
    import numpy
    import torch

    random.seed(begun.torch_seed("trainer/python"))
    numpy.random.seed(begun.torch_seed("trainer/numpy") & 0xFFFFFFFF)
    torch.manual_seed(begun.torch_seed("trainer/torch"))


def _obstacles(trainer: Any, begun: Begun) -> list[str]:
    """Why this Trainer cannot be recorded into this run; empty where it can."""
    args, order = trainer.args, begun.precommit.order
    strategy = getattr(args, "train_sampling_strategy", "random")
    if getattr(args, "group_by_length", False):  # its name before transformers 5
        strategy = "group_by_length"
    accumulate = int(order.batch) // int(order.micro or order.batch)
    size = len(trainer.train_dataset) if hasattr(trainer.train_dataset, "__len__") else 0
    found = {
        "a Trainer of several processes or devices; start one process that sees one device":
            args.world_size > 1 or args.n_gpu > 1 or begun.precommit.layout is not None,
        "DeepSpeed and FSDP keep the optimizer's state to themselves; train without them":
            bool(getattr(trainer, "is_deepspeed_enabled", False) or getattr(trainer, "is_fsdp_enabled", False)),
        "auto_find_batch_size would change the committed batch size; give the one that fits": args.auto_find_batch_size,
        f"the sampling strategy {strategy} would not be used: the order follows from the run's seed; leave it out":
            strategy not in ("random", "sequential"),
        "packing makes other records than the committed ones; pack before 'pot data commit'":
            bool(getattr(args, "packing", False)),
        "load_best_model_at_end releases other weights than the last step's, which are the recorded ones; leave it out":
            args.load_best_model_at_end,
        "there is no train_dataset": trainer.train_dataset is None,
        f"per_device_train_batch_size is {args.per_device_train_batch_size}, committed is {order.micro or order.batch}":
            args.per_device_train_batch_size != int(order.micro or order.batch),
        f"gradient_accumulation_steps is {args.gradient_accumulation_steps}, committed is accumulate={accumulate}":
            args.gradient_accumulation_steps != accumulate,
        "an epoch's incomplete last batch is left out by the committed order; set dataloader_drop_last=True to say so":
            bool(size % args.per_device_train_batch_size) and not args.dataloader_drop_last,
    }  # fmt: skip
    return [reason for reason, holds in found.items() if holds]
