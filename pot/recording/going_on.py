"""Where a run begins: at its first step, at its latest checkpoint with files, or at the start of a replayed segment.

In a distributed run every process puts its own part of the checkpoint back, and all stop where one cannot.

Spec: `specs/transcript.md`, "Resuming". Shows / does not show: see `pot.recording.run`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pot.canonical import MAX_DOCUMENT_BYTES, parse_canonical, read_file
from pot.errors import Malformed, Refused
from pot.recording import replaying
from pot.recording.batches.feeding import Feed, StreamFeed
from pot.recording.begin import Begun, talk
from pot.recording.environment import capture, differences
from pot.recording.generators import restore_rng
from pot.recording.state import STATE_FILE, check_files, checkpoint_name, read_state_document
from pot.recording.transcript import CheckpointEvent, ResumeEvent, StartEvent, StateFile, StepEvent
from pot.recording.writing.checkpointing import StateTaker
from pot.recording.writing.journal import Journal
from pot.recording.writing.writer import OnError, Writer

__all__ = ["Entered", "enter", "enter_replay"]

_SHARD: Final = re.compile(r"-([0-9]{5})-of-[0-9]{5}\.safetensors\Z")


@dataclass
class Entered:
    """Where the run stands. `generators`: what its generators are to be when it goes on, None: as they are.

    `fresh`: no checkpoint has been taken yet. `journal`, `writer`: of the process that writes the transcript.
    """

    done: int
    generators: JsonValue
    fresh: bool = False
    journal: Journal | None = None
    writer: Writer | None = None


def enter(begun: Begun, taker: StateTaker, feed: Feed, on_error: OnError) -> Entered:
    """Open the transcript and go on from the latest checkpoint with files, if there is one.

    Raises `Refused` where environment, transcript or checkpoint are not what they were, `EnvironmentFailure`.
    """
    opened: list[Journal] = []

    def latest(_: list[bytes]) -> bytes:
        _check_environment(begun)
        opened.append(Journal(begun.run_dir))
        events = opened[0].transcript.events
        saved = [event for event in events if isinstance(event, CheckpointEvent) and event.files]
        if saved:
            _check_trusted_start(begun, events[0])
        return saved[-1].to_bytes() if saved else b""

    try:
        answer = begun.ranks.decide(lambda: b"", latest)
        saved = _event(answer, "the latest checkpoint") if answer else None
        at = Entered(0, None, fresh=True)
        if saved is not None:
            at = _resume(begun, taker, feed, saved, opened[0] if opened else None)
        if opened:
            at.journal = opened[0]
            at.writer = Writer(begun.run_dir, opened[0], begun.precommit.config_blake3, saved, on_error, talk)
            if not opened[0].transcript.events:
                _write_start(begun, at.writer)
    except BaseException:
        for journal in opened:
            journal.close()
        raise
    return at


def _write_start(begun: Begun, writer: Writer) -> None:
    start = {
        "type": "start",
        "precommit_sha256": begun.precommit.sha256(),
        "nonce": begun.nonce.hex(),
        "nonce_source": begun.precommit.seed_source,
    }
    writer.append(StartEvent, start)


def _check_environment(begun: Begun) -> None:
    changed = [
        text for text in differences(begun.precommit.environment, capture()) if not text.startswith("variables.")
    ]
    if changed:
        raise Refused(f"record: the environment has changed since begin(): {changed[0]}; set it before begin()")


def _resume(begun: Begun, taker: StateTaker, feed: Feed, event: CheckpointEvent, journal: Journal | None) -> Entered:
    begun.ranks.agree(lambda: check_files(begun.run_dir, _own(event.files, begun.ranks.rank)))
    at = _load(begun, taker, feed, begun.run_dir / checkpoint_name(int(event.step)), event)
    if journal is not None:
        _say_resumed(begun, feed, event, journal)
    return at


def _own(files: tuple[StateFile, ...], rank: int) -> list[StateFile]:
    """The files that a process answers for: its rows, the first also what is nobody's."""
    places = [(file, _SHARD.search(file.path)) for file in files]
    return [file for file, shard in places if (int(shard[1]) if shard else 0) == rank]


def _say_resumed(begun: Begun, feed: Feed, event: CheckpointEvent, journal: Journal) -> None:
    transcript = journal.transcript
    steps = [later for later in transcript.events if isinstance(later, StepEvent)]
    if isinstance(feed, StreamFeed):
        feed.passed = {int(step.step): step.batch_blake3 for step in steps}
    after = sum(int(step.index) > int(event.index) for step in steps)
    torn = transcript.torn_bytes
    journal.append(ResumeEvent, type="resume", step=event.step, checkpoint_index=event.index, dropped_bytes=str(torn))
    lost = f"; a torn last line of {torn} bytes was dropped" if torn else ""
    where = f"after step {event.step} of {begun.precommit.steps}"
    talk(f"resuming {begun.run_dir} {where}, {after} steps are repeated{lost}")


def enter_replay(begun: Begun, taker: StateTaker, feed: Feed, replay: replaying.ReplayRange) -> Entered:
    """Take the start state of a replayed segment. Raises what `replaying.disagree` raises, `Malformed`."""
    start = replay.run_dir / replaying.START_FOLDER
    if replay.first > 0:
        what = replay.run_dir / "start.json"
        event = _event(read_file(what, limit=MAX_DOCUMENT_BYTES), str(what))
        try:
            at = _load(begun, taker, feed, start, event)
        except (Refused, Malformed) as error:  # the files are the committed ones: the program cannot have this
            replaying.disagree(replay, str(error))
    else:
        at = Entered(0, None)
        if not begun.seeded:
            generators, _ = taker.split(read_state_document(start / STATE_FILE)["rng"])
            replaying.take_generators(generators, str(start / STATE_FILE))
    found = taker.digests(at.done)
    if begun.ranks.first:
        replaying.write_initial(replay, found)
    return at


def _load(begun: Begun, taker: StateTaker, feed: Feed, folder: Path, event: CheckpointEvent) -> Entered:
    """Put a checkpoint's state back and check that it is the committed one. Raises `Refused`, `Malformed`."""
    at = Entered(int(event.step), None)

    def put_back() -> None:
        path = folder / STATE_FILE
        document = read_state_document(path)
        cursor = document["cursor"]
        if not isinstance(document["rng"], dict) or not isinstance(cursor, dict):
            raise Malformed(f"{path}: must hold the generators and the cursor")
        generators, kept = taker.split(document["rng"])
        try:
            place = int(str(cursor.get("epoch"))), int(str(cursor.get("position")))
        except ValueError:
            raise Malformed(f"{path}: the cursor's epoch and position are not numbers") from None
        feed.recall(kept, at.done, place)
        taker.source.load(folder)
        restore_rng(generators, what=str(path))
        at.generators = generators

    begun.ranks.agree(put_back)
    found = taker.digests(at.done)
    for name in sorted(event.components.keys() | found.keys()):
        if event.components.get(name) != found.get(name):
            raise Refused(
                f"{folder}: component {name} has the digest {found.get(name, 'none')} after loading, committed is"
                f" {event.components.get(name, 'none')}"
            )
    return at


def _event(data: bytes, what: str) -> CheckpointEvent:
    return CheckpointEvent.from_value(parse_canonical(data, what=what), what=what)


def _check_trusted_start(begun: Begun, event: object) -> None:
    """A transcript of another pre-commitment or nonce must not be continued under this one."""
    if (
        not isinstance(event, StartEvent)
        or event.precommit_sha256 != begun.precommit.sha256()
        or event.nonce != begun.nonce.hex()
    ):
        raise Refused(f"{begun.run_dir}: the transcript is not of this pre-commitment and nonce; use a new run folder")
