"""Writing a transcript: one lock, appended lines, fsync where a crash must lose nothing.

A line is written whole or, after a crash, is torn; `Journal.open` removes a torn last line and says how long it was.

Shows / does not show: nothing; this is the pen.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from pot.canonical import Count
from pot.errors import EnvironmentFailure, Refused
from pot.recording.transcript import (
    TRANSCRIPT_FILE,
    ZERO_DIGEST,
    Event,
    Transcript,
    load_transcript,
    previous_digest,
)

__all__ = ["LOCK_FILE", "Journal", "RunLock", "sync_folder"]

LOCK_FILE: Final = ".lock"


class RunLock:
    """An exclusive lock on a run directory, held until `release` or the end of the process."""

    def __init__(self, run_dir: Path) -> None:
        """Raises `Refused` where another recorder holds it, `EnvironmentFailure` where it cannot be made."""
        path = run_dir / LOCK_FILE
        try:
            self._made = [place for place in (path, run_dir, *run_dir.parents) if not place.exists()]
            run_dir.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise EnvironmentFailure(f"{run_dir}: cannot be used as run directory: {error.strerror or error}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(handle).st_nlink > 0  # else another recorder took the file back before we had it
        except OSError:
            held = False
        if not held:
            os.close(handle)
            raise Refused(f"{run_dir}: another recorder is writing to this run; wait for it or choose another folder")
        self._run_dir = run_dir
        self._handle: int | None = handle

    def release(self) -> None:
        """Let the next recorder in."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def take_back(self) -> None:
        """Release, and remove what the lock made, file and folders, where nothing else has come to lie there."""
        try:
            if [item.name for item in self._run_dir.iterdir()] == [LOCK_FILE]:
                for place in self._made:  # the innermost first
                    place.rmdir() if place.is_dir() else place.unlink()
        except OSError as error:  # another recorder came in between, or the disk fails: an empty folder does no harm
            sys.stderr.write(f"pot: {self._run_dir}: an empty folder stays: {error.strerror or error}\n")
        finally:
            self.release()


class Journal:
    """The open transcript of a run. The caller holds the run's `RunLock`."""

    def __init__(self, run_dir: Path) -> None:
        """Open or create the transcript. Raises `Malformed` for one that cannot be read, `EnvironmentFailure`."""
        self.path = run_dir / TRANSCRIPT_FILE
        self._previous = ZERO_DIGEST
        self.transcript = Transcript(b"", (), ())
        if self.path.exists() or self.path.is_symlink():
            self.transcript = load_transcript(run_dir)
        self.length = len(self.transcript.lines)
        if self.transcript.lines:
            self._previous = previous_digest(self.transcript.lines[-1])
        self._good = len(self.transcript.data) - self.transcript.torn_bytes  # bytes of whole lines
        self._broken = False
        try:
            # without a buffer: nothing of a line that failed can be written later, when the file is closed
            self._stream: BinaryIO = self.path.open("ab", buffering=0)
            if self.transcript.torn_bytes:
                self._stream.truncate(self._good)
            self.sync()
            sync_folder(run_dir)  # the file's name must survive a power cut too
        except OSError as error:
            raise self._failure(error) from None

    def append(self, kind: type[Event], **fields: Any) -> int:
        """Write one event and return its index. Raises `EnvironmentFailure`; until `repair`, every later one does.

        A killed process loses no line that was written, a power cut those since `sync`.
        """
        if self._broken:
            raise EnvironmentFailure(f"{self.path}: an earlier line could not be written; start the same command again")
        index: Count = str(self.length)
        line = kind(index=index, previous=self._previous, **fields).to_bytes()
        try:
            left = memoryview(line + b"\n")
            while left:
                left = left[self._stream.write(left) :]
        except OSError as error:
            self._broken = True  # a part of the line may stand there; it is cut off when the run goes on
            raise self._failure(error) from None
        self._good += len(line) + 1
        self._previous = previous_digest(line)
        self.length += 1
        return self.length - 1

    def repair(self) -> None:
        """Cut off what a failed `append` left; the same event may be tried again. Raises `EnvironmentFailure`."""
        try:
            self._stream.truncate(self._good)
        except OSError as error:
            raise self._failure(error) from None
        self._broken = False

    def sync(self) -> None:
        """Make everything written so far survive a power cut. Raises `EnvironmentFailure`."""
        try:
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise self._failure(error) from None

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._stream.close()

    def _failure(self, error: OSError) -> EnvironmentFailure:
        return EnvironmentFailure(
            f"{self.path}: cannot be written: {error.strerror or error}; free space, then start the same command again"
        )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut. Raises `OSError`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
