"""The recorder: three lines in a training loop that leave a transcript, and change no bit of the weights.

    with record("run/", model=model, optimizer=optimizer, data=loader, config=config) as run:
        for batch in run.batches(loader):
            loss = step(batch)
            run.step(loss=loss)

`run.step` comes last in the loop's body: what it sees is the state after the step (`pot.recording.run`). After a crash
the same command goes on from the latest checkpoint.

Spec: `specs/transcript.md`. Shows: nothing by itself. Does not show: what happened outside the loop's recorded state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pot.errors import Refused, UsageError
from pot.recording.batches.loading import check_loader, check_size, check_stream
from pot.recording.begin import Begun, begin, prepare, talk
from pot.recording.describe import Options
from pot.recording.precommit import total_records
from pot.recording.ranks import Ranks, world_size
from pot.recording.run import Run
from pot.recording.state import StateSource
from pot.recording.writing.writer import OnError

if TYPE_CHECKING:
    from pot.data.commit import Committed

__all__ = ["Begun", "Run", "begin", "record"]


def record(
    run: str | Path | Begun,
    *,
    model: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    state: StateSource | None = None,
    data: Any = None,
    config: Mapping[str, Any] | None = None,
    commitments: Sequence[Committed | str | Path] | None = None,
    on_error: OnError = "stop",
    frozen_apart: bool = False,
    **options: Any,
) -> Run:
    """A context manager that records the loop inside it into a run directory.

    `run`: the folder, or what `begin` gave. `model` and `optimizer`: PyTorch's; or `state`: any `StateSource`. `data`:
    a map-style dataset or a DataLoader over one; its attribute `commitments` stands in for the argument. `options`:
    those of `begin`; a DataLoader gives `batch_size`, and a dataset's attribute `path` is one of the `inputs`.

    `on_error`: "stop" raises where the disk fails; "gap" lets training go on and leaves a gap that every report shows.
    `frozen_apart`: parameters that the optimizer does not train (the base of an adapter) are hashed at the start and
    the end only and never written, so the released weights are the trained ones alone.

    Raises what `begin` raises, and `UsageError` for contradictory arguments.
    """
    if (state is None) == (model is None):
        raise UsageError("record: give model= and optimizer=, or state=, and not both")
    dataset = getattr(data, "dataset", data)
    if on_error not in ("stop", "gap"):
        raise UsageError(f'record: on_error is {on_error!r}; it is "stop" or "gap"')
    if isinstance(run, Begun):
        if options or config is not None or commitments is not None:
            raise UsageError(
                "record: config=, commitments= and options belong to begin(), which has been called already"
            )
        begun = run
    else:
        found = commitments if commitments is not None else getattr(dataset, "commitments", ())
        if options.get("batch_size") is None and getattr(data, "batch_size", None) is not None:
            options["batch_size"] = data.batch_size
        if data is not None:
            _check_data(data, bool(options.get("stream")), options.get("batch_size"))
        if model is not None and "sharding" not in options and world_size() > 1:
            options["sharding"] = _sharding(model)
        if "inputs" not in options and getattr(dataset, "path", None) is not None:
            options["inputs"] = [dataset.path]
        unknown = sorted(options.keys() - {field.name for field in fields(Options)})
        if unknown:
            raise UsageError(f"record: {unknown[0]}= is no option; see begin()")
        begun = prepare(run, Options(commitments=found, config=config, **options))
    try:
        ranks = begun.ranks
        if ranks.world != world_size():
            raise UsageError(
                "record: the program has joined other processes since begin(); call begin() after"
                " torch.distributed.init_process_group()"
            )
        if begun.precommit.layout is not None:
            _check_sharding(begun.precommit.layout.sharding, _sharding(model) if model is not None else "replicated")
            _check_sums(begun, model)
        source = state if state is not None else _torch_state(model, optimizer, scheduler, scaler, frozen_apart, ranks)
        order = begun.precommit.order
        if data is not None:
            _check_data(data, order.method == "stream/1", int(order.micro or order.batch))
            if order.method != "stream/1":
                check_size(data, total_records(begun.precommit))
    except BaseException:
        begun.close()
        raise
    return Run(begun, source, on_error)


def _check_data(data: Any, stream: bool, batch: int | None) -> None:
    """Refuse data that the run cannot be recorded with, before the first step. Raises `UsageError`."""
    if stream:
        check_stream(data)
    else:
        check_loader(data, None)
    own = getattr(data, "batch_size", None)
    if batch is not None and own is not None and own != batch:
        raise UsageError(f"record: the loader's batch_size is {own}, the run's is {batch}; make them the same")


def _torch_state(
    model: Any, optimizer: Any, scheduler: Any, scaler: Any, frozen_apart: bool, ranks: Ranks
) -> StateSource:
    from pot.recording.pytorch.state import TorchState

    return TorchState(
        model, optimizer, scheduler, scaler, frozen_apart=frozen_apart, rank=ranks.rank, world=ranks.world
    )  # fmt: skip


def _sharding(model: Any) -> str:
    from pot.recording.pytorch.rows import sharding_of

    return sharding_of(model)


def _check_sums(begun: Begun, model: Any) -> None:
    from pot.recording.pytorch.sums import adds_in_any_order

    if not adds_in_any_order(model, begun.ranks.world):
        return
    sentence = (
        f"DDP adds the gradients of {begun.ranks.world} processes in an order that a resumed run or a replay does not"
        " have; call model.register_comm_hook(None, pot.recording.pytorch.sums.average_in_order)"
    )
    if begun.strict:
        raise Refused(f"record(strict=True): {sentence}")
    if begun.ranks.first:
        talk(sentence)


def _check_sharding(committed: str, found: str) -> None:
    if committed != found:
        raise UsageError(
            f'record: the processes hold the model "{found}", begun was the run with sharding="{committed}"; give'
            f' begin() sharding="{found}"'
        )
