"""The writer: a thread beside training that hashes snapshots, writes checkpoints and appends to the transcript.

Everything comes out in the order in which it was handed in, so the transcript does not show that two threads made it.
Training waits only for the snapshot before the last, whose memory is used again, and for the end.

`on_error="stop"`: the first failure is raised at the next call; what was written before it holds, and the same command
goes on from the latest checkpoint. `on_error="gap"`: training goes on. State files that could not be written leave a
`gap` event; lines that could not be written are kept and tried again at every checkpoint and at the end.

Shows / does not show: nothing; see `pot.recording.transcript`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Queue
from threading import Event as Flag
from threading import Thread
from typing import Any, Final, Literal

from pot.commitments.state import FIRST_STATE, state_digest
from pot.errors import EnvironmentFailure
from pot.recording.state import Component, digests, write_checkpoint
from pot.recording.transcript import CheckpointEvent, EndEvent, Event, GapEvent, StateFile
from pot.recording.writing.journal import Journal

__all__ = ["OnError", "Writer"]

OnError = Literal["stop", "gap"]

_MAX_WAITING: Final = 1 << 16  # events that the disk may lag behind, then training waits
_MAX_KEPT: Final = 1 << 20  # events kept while the transcript cannot be written: some 500 MB
_MAX_REASON: Final = 200
_FAILED: Final = re.compile(
    r"cannot be written(?: by (process \d+))?: (?:\[Errno \d+\] )?(.+?)(?:; free space.*)?", re.DOTALL
)


class Writer:
    """Owns the journal of a run from `record` to its end."""

    def __init__(
        self,
        run_dir: Path,
        journal: Journal,
        config_blake3: str,
        last: CheckpointEvent | None,
        on_error: OnError,
        talk: Callable[[str], None],
    ) -> None:
        """`last`: the checkpoint that the run goes on from. `talk`: says a sentence to the person who trains."""
        self._run_dir = run_dir
        self._journal = journal
        self._config_blake3 = config_blake3
        self._state = last.state_blake3 if last is not None else FIRST_STATE
        self._model = last.components["model"] if last is not None else ""
        self._on_error = on_error
        self._talk = talk
        self._kept: deque[tuple[type[Event], dict[str, Any]]] = deque()
        self._error: BaseException | None = None
        self._free = Flag()  # whether the snapshot's memory may be used again
        self._free.set()
        self._jobs: Queue[Callable[[], None] | None] = Queue(_MAX_WAITING)
        self._thread = Thread(target=self._work, name="pot-writer", daemon=True)
        self._thread.start()

    def append(self, kind: type[Event], fields: Mapping[str, Any]) -> None:
        """Hand in an event. Raises what failed since the last call."""
        self._hand_in(lambda: self._append(kind, dict(fields)))

    def root(self, step: int, components: Mapping[str, str]) -> None:
        """Hand in a checkpoint without files, its components hashed already."""
        self._hand_in(lambda: self._event(step, dict(components), ()))

    def save(
        self, step: int, components: Mapping[str, Component], known: Mapping[str, str], *, files: bool, last: bool
    ) -> None:
        """Hand in a checkpoint to hash and, with `files`, to write. `known`: digests that need not be made any more.

        The values must not change until `wait_for_snapshot` returns. `last`: the run cannot go on without this one.
        """
        self._free.clear()
        self._hand_in(lambda: self._save(step, components, known, files, last))

    def wait_for_snapshot(self) -> None:
        """Wait until no handed-in value is in use. Raises what failed."""
        self._free.wait()
        self._raise()

    def written(self, step: int, components: Mapping[str, str], files: tuple[StateFile, ...]) -> None:
        """Hand in a checkpoint whose files lie there already."""
        self._hand_in(lambda: self._event(step, dict(components), files))

    def gap(self, step: int, components: Mapping[str, str], error: EnvironmentFailure) -> None:
        """Hand in a checkpoint whose files could not be written."""
        self._hand_in(lambda: self._gap(step, error))
        self.root(step, components)

    def end(self, step: int) -> None:
        """Hand in the end of the run, after its last checkpoint."""
        self._hand_in(lambda: self._finish(step))

    def close(self) -> None:
        """Do what was handed in, make it durable, and stop. Raises what failed."""
        try:
            if self._thread.is_alive():
                self._jobs.put(self._settle)
        finally:
            self.abandon()
        self._raise()

    def abandon(self) -> None:
        """Do what was handed in and stop, without a word about what failed: another error is on its way."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _hand_in(self, job: Callable[[], None]) -> None:
        self._raise()
        self._jobs.put(job)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is None:
                try:
                    job()
                except BaseException as error:  # raised again in the thread that trains
                    self._error = error
            if self._error is not None:
                self._free.set()

    def _save(
        self, step: int, components: Mapping[str, Component], known: Mapping[str, str], files: bool, last: bool
    ) -> None:
        try:
            found = {**digests({name: value for name, value in components.items() if name not in known}), **known}
            written: tuple[Any, ...] = ()
            if files:
                try:
                    written = write_checkpoint(self._run_dir, step, components)
                except EnvironmentFailure as error:
                    if self._on_error == "stop" or last:
                        raise
                    self._gap(step, error)
        finally:
            self._free.set()
        self._event(step, found, written)

    def _gap(self, step: int, error: EnvironmentFailure) -> None:
        reason = _cause(error)
        self._talk(f"step {step}: no checkpoint, training goes on: {self._run_dir}: {reason}")
        reason = "".join(character for character in reason if character.isprintable())[:_MAX_REASON]
        self._append(GapEvent, {"type": "gap", "step": str(step), "missing": "state", "reason": reason})

    def _event(self, step: int, components: dict[str, str], files: tuple[Any, ...]) -> None:
        state = state_digest(components, step, self._config_blake3, self._state)
        fields = {
            "type": "checkpoint",
            "step": str(step),
            "components": components,
            "state_blake3": state,
            "previous_state_blake3": self._state,
            "files": files,
        }
        self._state, self._model = state, components["model"]
        self._append(CheckpointEvent, fields)
        if files and not self._kept:
            self._sync()

    def _finish(self, step: int) -> None:
        fields = {"type": "end", "step": str(step), "state_blake3": self._state, "model_blake3": self._model}
        self._append(EndEvent, fields)

    def _append(self, kind: type[Event], fields: dict[str, Any]) -> None:
        if self._kept and kind is not CheckpointEvent:
            self._keep(kind, fields)
            return
        try:
            self._catch_up()
            self._journal.append(kind, **fields)
        except EnvironmentFailure as error:
            if self._on_error == "stop":
                raise
            if not self._kept:
                self._talk(f"training goes on, its lines are kept in memory meanwhile: {error}")
            self._keep(kind, fields)

    def _keep(self, kind: type[Event], fields: dict[str, Any]) -> None:
        if len(self._kept) >= _MAX_KEPT:
            raise EnvironmentFailure(
                f"{self._journal.path}: cannot be written since {_MAX_KEPT} lines, and memory is not for more;"
                " free space, then start the same command again"
            )
        self._kept.append((kind, fields))

    def _catch_up(self) -> None:
        """Write the kept lines. Raises `EnvironmentFailure` at the first that cannot be written yet."""
        if not self._kept:
            return
        self._journal.repair()
        count = len(self._kept)
        while self._kept:
            kind, fields = self._kept[0]
            self._journal.append(kind, **fields)
            self._kept.popleft()
        self._talk(f"{self._journal.path} can be written again, {count} kept lines were added")

    def _sync(self) -> None:
        try:
            self._journal.sync()
        except EnvironmentFailure as error:
            if self._on_error == "stop":
                raise
            self._talk(f"training goes on, a power cut may lose its latest lines: {error}")

    def _settle(self) -> None:
        """The last chance: what cannot be written now is lost, so it must be said."""
        self._catch_up()
        self._journal.sync()


def _cause(error: EnvironmentFailure) -> str:
    """What a gap says for ever: why it failed, without where it lay and what to do about it now."""
    _, found, rest = str(error).partition("cannot be written")
    cause = _FAILED.fullmatch(found + rest)
    return ": ".join(filter(None, cause.groups())) if cause is not None else str(error)
