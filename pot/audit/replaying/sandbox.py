"""Running the trainer's program for a replay: limited in time, memory and files, with nothing to copy the answer from.

Where the kernel allows it, the program runs without network, in its own process space, with everything but its own
folder read-only, and with the run directory (which holds the end states) and whatever else is named, such as a key,
covered by nothing (`covers`). It runs as a user without rights over these mounts, so that it cannot take the covers
away. Which walls held is reported, because not every machine allows them. They are no fortress: the program can
read what the auditor can read elsewhere, and talk to daemons whose sockets lie there; audit strangers' code on a
machine that holds nothing else.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final, Literal

from pot.audit.replaying.covers import outermost
from pot.errors import EnvironmentFailure

__all__ = ["Ended", "Isolation", "Limits", "end_running", "isolation", "run_limited"]

Isolation = Literal["full", "network", "none"]
"""full: no network, own processes, hidden folders that stay hidden; network: no network; none: limits only."""

_FULL: Final = (
    "unshare",
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
_NETWORK: Final = ("unshare", "--user", "--map-root-user", "--net")
_COVER: Final = """
folder=$1; seen=$2; carrier=$3; n=$4; shown=$5; shift 5
mounted() {
  while read -r _ _ _ _ point flags _; do
    case "$point" in *\\\\*) point=$(printf '%b.' "$point"); point=${point%.} ;; esac
    "$1"
  done </proc/self/mountinfo
}
lock() {
  case "$point" in "$seen" | /proc | /dev/shm) return ;; esac
  case ",$flags," in *,ro,*) return ;; esac
  mount -o "remount,bind,ro${flags#rw}" "$point" 2>/dev/null
}
check() {
  case "$point" in "$seen"/*) ;; *) return ;; esac
  case ",$flags," in *,ro,*) ;; *) exit 125 ;; esac
}
here=$seen
if [ -n "$carrier" ]; then
  mount -t tmpfs -o size=64k none "$seen" || exit 125
  here=$seen${seen#"$carrier"}
  mkdir -p "$here" || exit 125
fi
mount --bind "$folder" "$here" || exit 125
while [ "$shown" -gt 0 ]; do
  mount --bind "$1" "$here/$2" || exit 125
  shift 2; shown=$((shown-1))
done
if [ -n "$carrier" ]; then mount --move "$seen" "$carrier" || exit 125; fi
while [ "$n" -gt 0 ]; do
  if [ -d "$1" ]; then mount -t tmpfs -o size=64k none "$1"; else mount --bind /dev/null "$1"; fi ||
    [ ! -e "$1" ] || exit 125
  shift; n=$((n-1))
done
if [ -d /dev/shm ]; then mount -t tmpfs none /dev/shm || exit 125; fi
mounted lock
mounted check
cd "$seen" || exit 125
exec unshare --user --map-root-user -- "$@"
"""
_LOOPBACK: Final = """
%s -I -S -c 'import fcntl, socket, struct
with socket.socket() as any:
    fcntl.ioctl(any, 0x8914, struct.pack("16sh", b"lo", 1))' || exit 125
"""  # SIOCSIFFLAGS, IFF_UP: a new network has its loopback interface down
_TAIL_BYTES: Final = 4096
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PRCTL: Final = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
_running: Final[set[subprocess.Popen[bytes]]] = set()


@dataclass(frozen=True)
class Limits:
    """Wall-clock seconds, address space and file size (bytes) of one replayed segment."""

    seconds: float = 3600.0
    memory_bytes: int = 64 << 30
    file_bytes: int = 16 << 30


@dataclass(frozen=True)
class Ended:
    """How the program ended: exit code (None: out of time), the end of its standard error, and the walls around it."""

    code: int | None
    last_words: str
    isolation: Isolation


@lru_cache(maxsize=1)
def isolation() -> Isolation:
    """The strongest isolation that this machine allows, found by trying."""
    if shutil.which("unshare") is None:
        return "none"
    probes: tuple[tuple[Isolation, tuple[str, ...]], ...] = (
        ("full", (*_FULL, "sh", "-c", "mount -t tmpfs none /mnt && exec unshare --user --map-root-user true")),
        ("network", (*_NETWORK, "true")),
    )
    for name, command in probes:
        try:
            done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return name
    return "none"


def run_limited(
    command: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    limits: Limits,
    hidden: Sequence[Path],
    errors: Path,
    seen: Path | None = None,
    shown: Sequence[tuple[Path, Path]] = (),
    *,
    loopback: bool = False,
) -> Ended:
    """Run `command` in `folder` with exactly `variables`; `hidden` folders and files look empty to it.

    `errors`: file for its standard error. `seen`: an existing empty folder at which the program finds `folder` if the
    isolation is full, so that `folder` itself may lie in a hidden one. `shown`, for full isolation only: files of the
    auditor that the program finds, read-only, at a path in `folder`, where an empty file lies. A hidden folder that
    holds `seen` looks empty but for the way to it, and one inside another is not there. `loopback`: processes of
    the program talk to each other over 127.0.0.1; of a network they still see nothing.

    Raises `EnvironmentFailure` where it cannot be started at all.
    """
    walls = isolation()
    full = list(command)
    inside = _LOOPBACK % shlex.quote(sys.executable) if loopback else ""
    if walls == "full":
        at = (seen or folder).resolve()
        covered = outermost(path.resolve() for path in hidden if path.exists())
        carrier = next((str(path) for path in covered if at.is_relative_to(path)), "")
        names = [name for name in map(str, covered) if name != carrier]
        place = [str(folder.resolve()), str(at), carrier, str(len(names)), str(len(shown))]
        pairs = [str(path) for source, target in shown for path in (source.resolve(), target)]
        full = [*_FULL, "sh", "-c", inside + _COVER, "sh", *place, *pairs, *names, *command]
    elif walls == "network":
        full = [*_NETWORK, "sh", "-c", inside + 'exec "$@"', "sh", *command]

    maker = os.getpid()

    def limit() -> None:
        _end_with(maker)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))

    try:
        stream = errors.open("w+b")
    except OSError as error:
        raise EnvironmentFailure(f"{errors}: cannot be written: {error.strerror or error}") from None
    with stream:
        try:
            process = subprocess.Popen(
                full, cwd=folder, env=dict(variables), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=stream, start_new_session=True, preexec_fn=limit,
            )  # fmt: skip
        except (OSError, ValueError, subprocess.SubprocessError) as error:  # ValueError: a variable that cannot be set
            raise EnvironmentFailure(f"replay: the program cannot be started: {error}") from None
        try:
            _running.add(process)
            code: int | None = process.wait(timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _running.discard(process)
            _end(process)
        return Ended(code, _last_words(stream), walls)


def end_running() -> None:
    """End every program that a thread of this process waits for; each of those calls then returns."""
    for process in list(_running):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # ended by itself
            continue


def _end_with(maker: int) -> None:
    """In the new process: the kernel ends it with the thread that started it, also where that one is killed.

    `unshare --kill-child` hands that on to the program behind full walls; without them, what the program itself started
    may go on.
    """
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != maker:  # gone before it was asked for
            os._exit(125)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole session, also what the program left running."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nothing of it is left
        return
    finally:
        process.wait()


def _last_words(stream: BinaryIO) -> str:
    """The last line of what was written. Read from the open file: its name may lead to the auditor's key by now."""
    try:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - _TAIL_BYTES))
        text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(character for character in (lines[-1] if lines else "") if character.isprintable())[:300]
