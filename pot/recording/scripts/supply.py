"""Where a driven loader's batches come from: steps that are done are passed over, then the run's own batches follow.

A pass of the script over its loader has as many batches as an epoch of the committed order has; over a stream, as many
as the stream yields.

Shows / does not show: see `pot.recording.scripts.attach`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

from pot.commitments.order import steps_per_epoch
from pot.errors import Refused, UsageError
from pot.recording.batches.loading import check_loader, check_stream, fetch, is_stream
from pot.recording.recorder import Run
from pot.recording.scripts.launched import Launched

__all__ = ["PASS_ENDS", "Supply", "size"]

PASS_ENDS: Final = object()
"""What `Supply.take` gives where a stream's pass is over."""


class Supply:
    """The batches for one loader. Raises `UsageError` for a loader whose wishes would be passed over."""

    def __init__(self, loader: Any, launched: Launched) -> None:
        order = launched.begin().precommit.order
        self.loader = loader
        self.stream = order.method == "stream/1"
        self.micro = int(order.micro or order.batch)
        self.accumulate = int(order.batch) // self.micro
        self.pass_length: int | None = None
        """Batches of one pass; None for a stream."""
        if self.stream:
            check_stream(loader)
        else:
            self.pass_length = steps_per_epoch(launched.records(), int(order.batch)) * self.accumulate
            _check_whole(loader, self.micro, self.pass_length, launched)
        self.longest = 0
        """Batches of a stream's whole pass, once one was seen."""
        self._seed = launched.begin().seed
        self.left = launched.start() * self.accumulate
        """Batches that are still to be passed over."""
        self._passed: Iterator[Any] = iter(())
        self._sample: Any = None
        self._run: Run | None = None
        self._batches: Iterator[Any] = iter(())
        self._ahead: list[Any] = []  # the first batch of the next pass, where it came to light already

    @property
    def passing(self) -> bool:
        """Whether the next batch is one to pass over."""
        return self.left > 0

    def check_same(self, loader: Any) -> None:
        """Raise `Refused` for a second loader; the same one made anew is no second one."""
        ours = self.loader
        if loader is not ours and (loader.dataset is not ours.dataset or loader.batch_size != ours.batch_size):
            raise Refused(
                f"pot run: the script takes batches from two loaders over {size(loader)} records; one can be recorded"
                " from outside"
            )

    def begin_pass(self) -> None:
        """The script begins another pass over its loader."""
        if self.stream and self.passing:
            self._passed = iter(self.loader)

    def give_again(self) -> None:
        """The pass begins with a batch that an abandoned pass had taken already."""
        if self.stream and self.passing:
            next(self._passed, None)

    def attach(self, run: Run) -> None:
        """From now on the batches are those of `run`."""
        self._run, self._batches = run, run.batches(self.loader)

    def take(self, *, first: bool) -> Any:
        """The next batch; `first` of a pass or not. `PASS_ENDS` where the stream has no more."""
        if self.passing:
            batch = next(self._passed, PASS_ENDS) if self.stream else self._again()
            self.left -= batch is not PASS_ENDS
            return batch
        if self._ahead:
            return self._ahead.pop()
        batch = next(self._batches)
        if self.stream and not first and self._run is not None and self._run.feed.place(self._run.done + 1)[1] == 0:
            self._ahead = [batch]
            return PASS_ENDS
        return batch

    def _again(self) -> Any:
        """One batch again and again: what the script computes from it is thrown away."""
        if self._sample is None:
            numbers = list(range(self.micro))
            self._sample = next(fetch(self.loader, iter([("passed", 0, 0, numbers)]), self._seed))[1]
        return copy.deepcopy(self._sample)


def size(loader: Any) -> int:
    """Records of a loader's dataset; -1 where it does not say."""
    try:
        return -1 if is_stream(loader) else len(loader.dataset)
    except TypeError:
        return -1


def _check_whole(loader: Any, micro: int, length: int, launched: Launched) -> None:
    check_loader(loader, micro)
    records = size(loader)
    sampler = getattr(loader, "sampler", None)
    if getattr(sampler, "replacement", False) or getattr(sampler, "num_samples", records) != records:
        raise UsageError(
            f"pot run: the loader's {type(sampler).__name__} draws with replacement, or not every record; the committed"
            " order takes every record once, so leave it out"
        )
    rest = records - length * micro
    if rest and not loader.drop_last:
        launched.notes.add(
            f"the script would train on the last {rest} records of each epoch too; the committed order drops an"
            " incomplete step"
        )
