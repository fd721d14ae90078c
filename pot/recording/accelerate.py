"""Recording a loop under Hugging Face's Accelerate: what `accelerator.prepare` wrapped is unwrapped for the recorder.

    with record_accelerated(accelerator, begun, model=model, optimizer=optimizer, data=loader) as run:
        for batch in run.batches(loader):
            with accelerator.accumulate(model):
                ...
                run.step(loss=loss)

`gradient_accumulation_steps` must be the `accumulate` of `begin`; then `accelerator.sync_gradients` says what
`run.completes` says. Batches stay where the loader's dataset has them: move them by `batch.to(accelerator.device)`.

Spec: `specs/recording.md`. Shows / does not show: see `pot.recording.run`. Written against accelerate 1.15.
"""

from __future__ import annotations

from typing import Any

from pot.errors import UsageError
from pot.recording.begin import Begun
from pot.recording.recorder import record
from pot.recording.run import Run

__all__ = ["record_accelerated"]


def record_accelerated(
    accelerator: Any, begun: Begun, *, model: Any, optimizer: Any, scheduler: Any = None, **options: Any
) -> Run:
    """`record` for prepared objects. `options`: those of `record` (`data`, `on_error`, `frozen_apart`).

    Raises `UsageError` for several processes, for DeepSpeed, FSDP and Megatron, and for another accumulation than the
    committed one, besides what `record` raises.
    """
    order = begun.precommit.order
    accumulate = int(order.batch) // int(order.micro or order.batch)
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    try:
        if accelerator.num_processes > 1 or kind != "NO":
            raise UsageError(
                f"record_accelerated: {accelerator.num_processes} processes of kind {kind}; start one process without a"
                " launcher, or record the model that PyTorch distributes, with pot.record"
            )
        if accelerator.gradient_accumulation_steps != accumulate:
            raise UsageError(
                f"record_accelerated: gradient_accumulation_steps is {accelerator.gradient_accumulation_steps},"
                f" committed is accumulate={accumulate}; make them the same"
            )
        return record(
            begun,
            model=accelerator.unwrap_model(model),
            optimizer=getattr(optimizer, "optimizer", optimizer),
            scheduler=getattr(scheduler, "scheduler", scheduler),
            scaler=accelerator.scaler,
            **options,
        )
    except BaseException:
        begun.close()
        raise
