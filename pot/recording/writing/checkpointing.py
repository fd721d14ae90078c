"""Taking the state of a run: its digests, its checkpoints, in one process or in several that hold it together.

In several, every process hashes what it holds and the first puts the digests together, so a checkpoint is a meeting:
all stand at the same step, what all must hold alike is compared, and one answer, or one error, reaches them all. Rows
are written by the processes that hold them; whole copies by the first, beside training.

Spec: `specs/transcript.md`, "State". Shows / does not show: see `pot.recording.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import JsonValue

from pot.canonical import canonical_bytes, parse
from pot.commitments.sharded import ROWED, joined_digest
from pot.commitments.state import json_digest
from pot.errors import EnvironmentFailure, Refused, UsageError
from pot.recording import replaying
from pot.recording.batches.feeding import Feed
from pot.recording.begin import Begun
from pot.recording.cursor import cursor_value
from pot.recording.generators import capture_rng
from pot.recording.precommit import files_due
from pot.recording.state import (
    Component,
    StateSource,
    digests,
    dropped,
    moved_in,
    new_folder,
    unfinished,
    write_files,
)
from pot.recording.transcript import StateFile
from pot.recording.writing.file_names import checkpoint_name
from pot.recording.writing.writer import OnError, Writer

__all__ = ["StateTaker"]

_STREAM_KEY: Final = "stream"  # of the generators' component
_ALIKE: Final = {"model": "other weights", "optimizer": "another optimizer state"}
_MAX_SAID: Final = 1 << 30


class StateTaker:
    """What the whole state of a run is, of which `source` has this process's part."""

    def __init__(self, begun: Begun, source: StateSource, feed: Feed, on_error: OnError) -> None:
        self.source = source
        self.ranks = begun.ranks
        self.frozen: dict[str, str] = {}
        """The digest of the parameters that no optimizer holds, where they are apart; `take_frozen` makes it."""
        self._begun = begun
        self._feed = feed
        self._on_error = on_error
        self._cut = self.ranks.world if getattr(source, "rows", None) is not None else 1  # processes that hold rows

    def generators(self) -> dict[str, JsonValue]:
        """The generators of this process, and what its feed must remember to go on."""
        rng, kept = dict(capture_rng(own_device=self.ranks.world > 1)), self._feed.remembered()
        return rng if kept is None else {**rng, _STREAM_KEY: kept}

    def split(self, generators: Any) -> tuple[dict[str, JsonValue], JsonValue]:
        """From a checkpoint's `rng`: this process's generators, and what its feed remembers."""
        if self.ranks.world > 1:
            every = generators.get("ranks") if isinstance(generators, dict) else None
            if not isinstance(every, list) or len(every) != self.ranks.world or not isinstance(every[0], dict):
                raise Refused("checkpoint: it was not made by this number of processes")
            generators = every[self.ranks.rank]
        return {name: value for name, value in generators.items() if name != _STREAM_KEY}, generators.get(_STREAM_KEY)

    def digests(self, done: int) -> dict[str, str]:
        """The digest of each component now, hashed in place by every core: training stands still meanwhile.

        Every process must call it, and gets the same. Raises `Refused` where processes do not agree.
        """
        if self.ranks.world == 1:
            own = {"rng": self.generators(), "cursor": self._cursor(done)}
            return {**digests({**self.source.capture(), **own}, threads=0), **self.frozen}
        return self._meet(done, lambda found, _: found)

    def take_frozen(self) -> dict[str, str]:
        """The digest of the parameters that no optimizer holds; {} where they are not apart. Every process calls it."""
        apart = getattr(self.source, "frozen_names", None)
        own = {} if not apart else digests({"frozen": self.source.frozen()}, threads=0)  # type: ignore[attr-defined]
        if self.ranks.world == 1 or not own:
            return own

        def judge(heard: list[bytes]) -> bytes:
            found = [data.decode() for data in heard]
            if self._cut == 1 and len(set(found)) > 1:
                raise Refused("record: the processes have other frozen parameters; load the same in all of them")
            return (joined_digest("frozen", found) if self._cut > 1 else found[0]).encode()

        return {"frozen": self.ranks.decide(lambda: own["frozen"].encode(), judge).decode()}

    def checkpoint(self, writer: Writer | None, done: int) -> None:
        """Take a checkpoint after `done` steps. `writer`: the first process's. Every process must call it."""
        last = done == int(self._begun.precommit.steps)
        if last and self.take_frozen() != self.frozen:
            raise UsageError(
                "record: parameters that no optimizer holds changed during training; record them with the others, by"
                " frozen_apart=False"
            )
        files = files_due(self._begun.precommit, done)
        if self.ranks.world == 1:
            self._alone(_there(writer), done, files, last)
        elif files and self._cut > 1:
            self._by_rows(writer, done, last or done == 0)
        else:
            self._meet(done, lambda found, every: self._by_first(_there(writer), done, found, every, files))

    def finish(self, replay: replaying.ReplayRange, steps: list[dict[str, Any]], done: int) -> NoReturn:
        """Write what a replay gave, every process its part, and end the program."""
        found = self.digests(done)
        if self._cut > 1:
            end = replay.out / replaying.END_FOLDER
            self.ranks.agree(lambda: end.mkdir() if self.ranks.first else None)
            self.ranks.agree(lambda: self._write_own(end))
        if not self.ranks.first:
            raise SystemExit(0)
        replaying.finish(replay, steps, found, self.source if self._cut == 1 else None)

    def _write_own(self, folder: Path) -> None:
        parts = self.source.capture()
        write_files(folder, {name: parts[name] for name in parts if name in ROWED}, self.ranks.rank, self._cut)

    def _cursor(self, done: int) -> dict[str, JsonValue]:
        return dict(cursor_value(done, *self._feed.place(done)))

    def _alone(self, writer: Writer, done: int, files: bool, last: bool) -> None:
        """Hand a checkpoint to the writer: hashed here where that is all there is to do, else from a snapshot."""
        if not files and getattr(self.source, "in_place", True):
            writer.root(done, self.digests(done))
            return
        self._snapshot(writer, done, self.generators(), self.frozen, files, last or done == 0)

    def _snapshot(
        self, writer: Writer, done: int, rng: JsonValue, known: Mapping[str, str], files: bool, last: bool
    ) -> None:
        writer.wait_for_snapshot()
        beside = hasattr(self.source, "snapshot")
        parts = self.source.snapshot() if beside else self.source.capture()  # type: ignore[attr-defined]
        own = {"rng": rng, "cursor": self._cursor(done)}
        writer.save(done, {**parts, **own}, known, files=files, last=last)
        if not beside:
            writer.wait_for_snapshot()

    def _by_first(
        self, writer: Writer, done: int, found: dict[str, str], every: list[JsonValue], files: bool
    ) -> dict[str, str]:
        if files:
            last = done in (0, int(self._begun.precommit.steps))
            self._snapshot(writer, done, {"ranks": every}, found, files, last)
        else:
            writer.root(done, found)
        return found

    def _by_rows(self, writer: Writer | None, done: int, needed: bool) -> None:
        """Every process writes its rows into one folder, which counts when all have. `needed`: no gap is possible."""
        run_dir = self._begun.run_dir
        kept: dict[str, Any] = {}
        why: list[EnvironmentFailure] = []

        def folder(found: dict[str, str], every: list[JsonValue]) -> dict[str, str]:
            kept.update(found=found, rng={"ranks": every})
            try:
                new_folder(run_dir, done)
            except EnvironmentFailure as error:
                why.append(error)
            return found

        self._meet(done, folder)

        def written() -> bytes:
            try:
                return canonical_bytes({name: [str(size), sha] for name, (size, sha) in self._own_files(done).items()})
            except EnvironmentFailure as error:
                where = f"{run_dir / checkpoint_name(done)}: cannot be written by process {self.ranks.rank}"
                return canonical_bytes({"failed": f"{where}: {error.__cause__ or error}; free space and resume"})

        def moved(heard: list[bytes]) -> bytes:
            listed = [parse(data, what="written files") for data in heard]
            try:
                if why or any("failed" in found for found in listed):
                    raise why[0] if why else EnvironmentFailure(next(f["failed"] for f in listed if "failed" in f))
                files = self._finish_rows(done, listed, kept["rng"])
            except EnvironmentFailure as error:
                dropped(run_dir, done)
                if needed or self._on_error == "stop":
                    raise
                _there(writer).gap(done, kept["found"], error)
            else:
                _there(writer).written(done, kept["found"], files)
            return b""

        self.ranks.decide(written, moved)

    def _own_files(self, done: int) -> dict[str, tuple[int, str]]:
        place = unfinished(self._begun.run_dir, done)
        if not place.is_dir():
            raise EnvironmentFailure(f"{place}: not there; all processes must see the run directory")
        own = {name: value for name, value in self.source.capture().items() if name in ROWED}
        return write_files(place, own, self.ranks.rank, self._cut, durable=True)

    def _finish_rows(self, done: int, listed: list[Any], rng: JsonValue) -> tuple[StateFile, ...]:
        state: Component = {
            "version": "pot/checkpoint/v1", "step": str(done), "rng": rng, "cursor": self._cursor(done),
        }  # fmt: skip
        rest = {name: value for name, value in self.source.capture().items() if name not in ROWED}
        written = write_files(unfinished(self._begun.run_dir, done), {**rest, "state": state}, durable=True)
        for found in listed:
            written.update({name: (int(size), sha) for name, (size, sha) in found.items()})
        return moved_in(self._begun.run_dir, done, written)

    def _meet(self, done: int, then: Callable[[dict[str, str], list[JsonValue]], dict[str, str]]) -> dict[str, str]:
        """Put together what every process holds; the first goes on with `then` before the others are let go."""

        def judge(heard: list[bytes]) -> bytes:
            said = [parse(data, what="another process", limit=_MAX_SAID) for data in heard]
            every = [other["rng"] for other in said]
            return canonical_bytes(then(self._together(said, done), every))

        answer: dict[str, str] = parse(self.ranks.decide(lambda: self._say(done), judge), what="the first process")
        return answer

    def _say(self, done: int) -> bytes:
        shared = getattr(self.source, "shared", self.source.capture)()
        alike = digests(shared, threads=0)
        if self._cut > 1 or getattr(self.source, "skips_buffers", False):
            held = digests(self.source.capture(), threads=0) if self._cut > 1 or self.ranks.first else {}
        else:
            held = alike
        return canonical_bytes({"step": str(done), "held": held, "alike": alike, "rng": self.generators()})

    def _together(self, said: list[Any], done: int) -> dict[str, str]:
        first = said[0]
        for rank, other in enumerate(said):
            if other["step"] != first["step"]:
                raise Refused(
                    f"record: process {rank} stands after step {other['step']}, process 0 after step {first['step']};"
                    " every process must take the same steps"
                )
            for name in sorted(first["alike"].keys() | other["alike"].keys(), key=lambda name: (name != "model", name)):
                if other["alike"].get(name) != first["alike"].get(name):
                    what = _ALIKE.get(name, f"another {name}")
                    raise Refused(
                        f"record: process {rank} has {what} after step {done} than process 0; what each holds whole"
                        " must be the same everywhere, as DistributedDataParallel keeps it"
                    )
        found = dict(first["held"])
        if self._cut > 1:
            for name in ROWED & found.keys():
                found[name] = joined_digest(name, [other["held"][name] for other in said])
        found["rng"] = json_digest("rng", {"ranks": [other["rng"] for other in said]})
        found["cursor"] = json_digest("cursor", self._cursor(done))
        return {**found, **self.frozen}


def _there(writer: Writer | None) -> Writer:
    if writer is None:
        raise UsageError("record: this process does not write the transcript")
    return writer
