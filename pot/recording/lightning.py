"""Recording a Lightning `Trainer`: a callback, and a loader in the committed order to fit on.

    recording = record_fit(begin("run/", ...))
    trainer = lightning.Trainer(max_steps=1000, callbacks=[recording])
    trainer.fit(module, recording.loader(loader))

Lightning keeps its loop, hooks, validation and logs. After a crash the same command goes on: model, optimizer and
schedule from the run directory, Lightning's counters to match. Its own checkpoints are not used.

Spec: `specs/recording.md`. Shows / does not show: see `pot.recording.run`. Written against Lightning 2.6.
"""

from __future__ import annotations

from typing import Any

from pot.errors import MissingExtra, UsageError
from pot.recording.begin import Begun
from pot.recording.run import Run
from pot.recording.trainer_loop import DrivenRun, HandedOut
from pot.recording.writing.writer import OnError

__all__ = ["FitRecording", "record_fit"]


def record_fit(begun: Begun, *, frozen_apart: bool = False, on_error: OnError = "stop") -> Any:
    """The callback, a `FitRecording` and a Lightning `Callback`, for one `fit`; see `record` for the options.

    Raises `MissingExtra`.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        begun.close()
        raise MissingExtra("lightning", "recording a Lightning Trainer") from None
    kind = type("FitRecordingCallback", (FitRecording, Callback), {})
    return kind(begun, {"frozen_apart": frozen_apart, "on_error": on_error})


class FitRecording:
    """The callback's hooks. Made by `record_fit`."""

    def __init__(self, begun: Begun, options: dict[str, Any]) -> None:
        self._options = options
        self._driven = DrivenRun(begun)
        self._resumed = 0  # micro-batches of the current epoch that were trained on before this process

    @property
    def run(self) -> Run | None:
        """The run, from the beginning of training on."""
        return self._driven.run

    def loader(self, loader: Any) -> HandedOut:
        """What to fit on in place of `loader`. Raises `UsageError` for a loader that cannot be recorded."""
        return self._driven.hand_out(loader)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Optimizer and schedule exist: record or resume, and let Lightning count from there."""
        for reason in _obstacles(trainer, module, self._driven):
            raise UsageError(f"record_fit: {reason}")
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        optimizer = trainer.optimizers[0]
        run = self._driven.start(
            model=module,
            optimizer=getattr(optimizer, "optimizer", optimizer),
            scheduler=schedules[0] if schedules else None,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            **self._options,
        )
        self._resumed = self._count_from(trainer, run.done)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        """In the epoch that is gone on with, let Lightning know which batch this is: it validates at the last."""
        if self._resumed:
            progress = trainer.fit_loop.epoch_loop.batch_progress.current
            for name in ("ready", "started", "processed", "completed"):
                setattr(progress, name, getattr(progress, name) + self._resumed)
            trainer.fit_loop._data_fetcher.fetched += self._resumed
            self._resumed = 0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """After each micro-batch: its loss, and at the last of a step that the optimizer has stepped."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None:
            raise UsageError("record_fit: training_step gave no loss, so Lightning left this batch out; give a loss")
        self._driven.loss(loss)
        if self._driven.run is not None and self._driven.run.completes:
            self._driven.stepped()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """The end of training."""
        self._driven.leave(None, None, None)

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Training failed, was interrupted, or a replay is at its end."""
        self._driven.leave(type(exception), exception, exception.__traceback__)

    def _count_from(self, trainer: Any, done: int) -> int:
        """Set Lightning's counters; returns the micro-batches of the epoch in which training goes on."""
        fit = trainer.fit_loop
        epochs, steps = divmod(done, self._driven.epoch_steps)
        for progress in (fit.epoch_progress.current, fit.epoch_progress.total):
            for name in ("ready", "started", "processed", "completed"):
                setattr(progress, name, epochs)
        total = fit.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
        total.ready = total.completed = done
        fit.epoch_loop._batches_that_stepped = done
        return steps * self._driven.accumulate


def _obstacles(trainer: Any, module: Any, driven: DrivenRun) -> list[str]:
    """Why this fit cannot be recorded; empty where it can."""
    configs = list(trainer.lr_scheduler_configs)
    steps = trainer.estimated_stepping_batches
    every_step = all(config.interval == "step" and config.frequency == 1 for config in configs)
    found = {
        "fit on recording.loader(loader), not on the loader itself": not driven.handed_out(trainer.train_dataloader),
        "a Trainer of several processes; give devices=1": trainer.world_size > 1,
        "with manual optimization nobody says when a step is complete; record it as a plain loop, with pot.record":
            not module.automatic_optimization,
        f"the module has {len(trainer.optimizers)} optimizers, one can be recorded": len(trainer.optimizers) != 1,
        f"the module has {len(configs)} schedules, one can be recorded; join them, by SequentialLR": len(configs) > 1,
        'a schedule that moves between steps cannot be resumed; give it {"interval": "step", "frequency": 1}':
            not every_step,
        "Lightning loaded a checkpoint of its own; leave ckpt_path out": trainer.global_step > 0,
        f"accumulate_grad_batches is {trainer.accumulate_grad_batches}, committed is accumulate={driven.accumulate}":
            trainer.accumulate_grad_batches != driven.accumulate,
        f"Lightning will take {steps} steps, committed are {driven.steps}": steps != driven.steps,
    }  # fmt: skip
    return [reason for reason, holds in found.items() if holds]
