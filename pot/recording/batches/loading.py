"""Batches in the committed order, from a DataLoader or any map-style dataset, without touching the program's RNG.

Without workers records are fetched here and now, with the program's own generators, whose state is in every checkpoint.
With workers each batch is fetched under generators seeded from (run seed, step): then the number of workers, their
prefetching and a resumption cannot change what they draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pot.commitments.seed import integer
from pot.errors import UsageError

__all__ = ["check_loader", "check_size", "check_stream", "fetch", "is_stream"]

# they say "every record, in any order"; Accelerate puts the third in the second's place
_PLAIN_SAMPLERS: Final = ("SequentialSampler", "RandomSampler", "SeedableRandomSampler")

_Place = tuple[int, int]
_Keyed = tuple[str, int, int, list[int]]
"""What seeds its workers' generators, its step, its place among the step's micro-batches, its record numbers."""


def is_stream(loader: Any) -> bool:
    """Whether this yields records without numbers: an `IterableDataset`, a loader over one, or a plain iterable."""
    dataset = getattr(loader, "dataset", loader)
    kinds = {kind.__name__ for kind in type(dataset).__mro__}
    return "IterableDataset" in kinds or not hasattr(dataset, "__getitem__")


def check_stream(loader: Any) -> None:
    """Refuse what cannot be begun anew, or has records by number. Raises `UsageError`."""
    if not hasattr(loader, "__iter__") or hasattr(loader, "__next__"):
        raise UsageError("run.batches: the stream can be read once only; give a loader or an iterable dataset")
    if not is_stream(loader):
        raise UsageError("run.batches: the run was begun with stream=True, but this dataset has records by number")


def check_loader(loader: Any, batch: int | None) -> None:
    """Refuse a loader whose wishes the committed order would pass over without a word.

    `batch`: the committed batch size, None where it is not known yet. Raises `UsageError`.
    """
    if is_stream(loader):
        raise UsageError(
            "record: an iterable dataset has no records by number, so no order to commit to; give a map-style dataset"
            " (one with __getitem__ and __len__), or record what it yields with stream=True"
        )
    own = getattr(loader, "batch_size", None)
    if batch is not None and own is not None and own != batch:
        raise UsageError(f"run.batches: the loader's batch_size is {own}, committed is {batch}; make them the same")
    sampler = getattr(loader, "batch_sampler", None)
    if sampler is not None and type(sampler).__name__ == "BatchSampler":
        sampler = sampler.sampler  # a loader made with this batch sampler has another one of its own
    if sampler is not None and type(sampler).__name__ not in _PLAIN_SAMPLERS:
        raise UsageError(
            f"record: the loader's {type(sampler).__name__} would not be used, because the order follows from the run's"
            " seed; leave it out, and commit to exactly the records that are to be trained on"
        )


def check_size(loader: Any, expected: int) -> None:
    """Refuse a dataset that does not hold exactly the committed records. Raises `UsageError`."""
    dataset = getattr(loader, "dataset", loader)
    if not hasattr(dataset, "__len__"):
        raise UsageError("record: the dataset has no length; only map-style datasets can be recorded")
    if len(dataset) != expected:
        raise UsageError(f"record: the dataset has {len(dataset)} records, its commitments {expected}; commit it anew")


def fetch(loader: Any, batches: Iterator[_Keyed], seed: bytes) -> Iterator[tuple[_Place, Any]]:
    """Yield ((step, place), batch) for each wanted micro-batch. `loader`: a DataLoader or a map-style dataset.

    `check_loader` has seen the loader.
    """
    dataset = getattr(loader, "dataset", loader)
    if getattr(loader, "num_workers", 0):
        yield from _with_workers(loader, dataset, batches, seed)
        return
    collate = getattr(loader, "collate_fn", None)
    pin = _pins(loader)
    for _, step, place, records in batches:
        batch = _items(dataset, records)
        if collate is not None:
            batch = collate(batch)
        yield (step, place), _pinned(batch) if pin else batch


def _items(dataset: Any, records: list[int]) -> Any:
    many = getattr(dataset, "__getitems__", None)  # what PyTorch's own fetcher prefers
    return many(records) if callable(many) else [dataset[record] for record in records]


def _pins(loader: Any) -> bool:
    """Whether memory is pinned: as PyTorch's own loader does, only where there is a device to pin it for."""
    if not getattr(loader, "pin_memory", False):
        return False
    import torch

    return torch.accelerator.is_available()


def _pinned(batch: Any) -> Any:
    from torch.utils.data._utils import pin_memory

    pin: Any = pin_memory.pin_memory
    return pin(batch)


class _KeyedDataset:
    """The dataset as its workers see it: a batch is fetched whole, under its own generators."""

    def __init__(self, dataset: Any, seed: bytes) -> None:
        self._dataset = dataset
        self._seed = seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, keyed: list[_Keyed]) -> list[tuple[_Place, Any]]:
        import random

        import torch

        found = []
        for label, step, place, records in keyed:
            key = integer(self._seed, f"loader/step/{label}")
            random.seed(key)
            torch.manual_seed(key)
            _seed_numpy(key)
            found.append(((step, place), _items(self._dataset, records)))
        return found


def _seed_numpy(key: int) -> None:
    import sys

    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(key & 0xFFFFFFFF)


class _KeyedCollate:
    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, batches: list[tuple[_Place, Any]]) -> tuple[_Place, Any]:
        ((place, items),) = batches
        return place, self._collate(items)


def _with_workers(loader: Any, dataset: Any, batches: Iterator[_Keyed], seed: bytes) -> Iterator[tuple[_Place, Any]]:
    import torch
    from torch.utils.data import DataLoader

    generator = torch.Generator()  # its own: an iterator draws from the global one otherwise
    generator.manual_seed(integer(seed, "loader/base"))
    keyed: Any = DataLoader(
        _KeyedDataset(dataset, seed),  # type: ignore[arg-type]
        batch_sampler=([batch] for batch in batches),
        num_workers=loader.num_workers,
        collate_fn=_KeyedCollate(loader.collate_fn),
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        generator=generator,
    )
    yield from keyed
