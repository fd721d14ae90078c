"""Beginning a run: the pre-commitment is written, the nonce obtained, and the seed made, before a model exists.

On resuming, the program describes itself again; a pre-commitment with other content than the one on disk is refused
with the first difference, so that a run cannot change its data, code or configuration half-way.

Shows: with a verifier's nonce, that the pre-commitment existed before the seed did.
Does not show: with a nonce of its own ("self"), that no other seeds were tried.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pot.canonical import parse_canonical, read_file, write_file
from pot.commitments.seed import integer, run_seed
from pot.errors import EnvironmentFailure, Refused, UsageError
from pot.recording import replaying
from pot.recording.config import plain_config
from pot.recording.contradiction import contradiction
from pot.recording.describe import NONCE_TIMEOUT, Options, describe, lacking, seed_source
from pot.recording.environment import refuse_unrepeatable, replay_obstacles
from pot.recording.joining import check_layout, differing_processes, introduction
from pot.recording.precommit import MAX_PRECOMMIT_BYTES, Parent, Precommit, SeedNonce
from pot.recording.ranks import Ranks, alone, joined
from pot.recording.state import checkpoint_name
from pot.recording.transcript import TRANSCRIPT_FILE, EndEvent, load_transcript
from pot.recording.writing.journal import RunLock, sync_folder

if TYPE_CHECKING:
    from pot.data.commit import Committed

__all__ = [
    "COMMITMENTS_FOLDER",
    "MAX_NONCE_BYTES",
    "NONCE_FILE",
    "PRECOMMIT_FILE",
    "Begun",
    "begin",
    "prepare",
    "read_nonce",
    "talk",
]

PRECOMMIT_FILE: Final = "precommit.json"
NONCE_FILE: Final = "nonce.json"
COMMITMENTS_FOLDER: Final = "commitments"
_POLL_SECONDS: Final = 0.1
MAX_NONCE_BYTES: Final = 4096
_NONCE_BYTES: Final = 32


@dataclass
class Begun:
    """A run begun: its pre-commitment, nonce and seed. Next: `torch.manual_seed(begun.torch_seed("init"))`."""

    run_dir: Path
    precommit: Precommit
    nonce: bytes = field(repr=False)
    lock: RunLock | None = field(repr=False)
    replay: replaying.ReplayRange | None = None
    seeded: bool = False
    strict: bool = False
    ranks: Ranks = field(default_factory=alone, repr=False)
    """The processes that train together."""
    launched: bool = False
    """Whether the script knows nothing of it: its loop then turns over for the finished steps (`pot run`)."""
    lacks: str | None = None
    """Of a launched script, which committed files are not among its inputs: it is said when its reads are known."""
    seed: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.seed = run_seed(self.precommit.sha256(), self.nonce)

    def torch_seed(self, label: str) -> int:
        """A seed below 2^63 for one purpose, named by `label` ("init", "dropout"); pass it to `torch.manual_seed`.

        Every process gets the same; a label with the process's number in it gives each its own.
        """
        return integer(self.seed, label)

    def close(self) -> None:
        """Let another recorder use the run directory; `record` does it by itself."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None


def begin(
    run_dir: str | Path,
    *,
    commitments: Sequence[Committed | str | Path] = (),
    config: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    checkpoint_every: int | None = None,
    semantics: Literal["float", "exact"] = "float",
    nonce: str = "self",
    nonce_timeout: float = NONCE_TIMEOUT,
    inputs: Sequence[str | Path] = (),
    code: Sequence[str | Path] = (),
    parent: Parent | None = None,
    secret_sha256: str | None = None,
    mode: Literal["segment", "step"] = "segment",
    state_every: int | None = None,
    accumulate: int = 1,
    stream: bool = False,
    strict: bool = False,
    sharding: Literal["replicated", "rows"] = "replicated",
) -> Begun:
    """Begin or resume the run in `run_dir`: write the pre-commitment, obtain the nonce, derive the seed.

    `commitments`: of the records, in dataset order (`Committed`, or the path that `pot data commit` wrote). `config`:
    every hyper-parameter. `batch_size`, `steps`, `checkpoint_every` default to the entries of `config` with these names
    (`checkpoint_every` to 50; `epochs` in `config` may stand for `steps`). `nonce`: "self", "verifier" (waits up to
    `nonce_timeout` seconds for `nonce.json` in the run directory), "beacon:quicknet:ROUND" (waits for that round of the
    drand beacon, which must lie ahead, in `nonce.json`), or 64 hex digits. `inputs`: files that the program reads
    (data, a parent's weights). `code`: files of code that are not imported yet.

    A root (the digest of the whole state) is taken every `checkpoint_every` steps, with `mode` "step" after every step;
    state files are written every `state_every` steps (default: with every root that was asked for, else 100), and are
    what replays start from. `accumulate`: micro-batches of `batch_size` records in one optimizer step. `stream`: the
    loader is iterable, so batches are recorded as they come and no seed fixes them. `strict`: refuse to begin where
    something is found that will not replay elsewhere; otherwise it is said on standard error.

    Of a distributed run every process calls it, after `torch.distributed.init_process_group`. `batch_size` is then that
    of one process, `sharding` how they hold the model: "replicated" (DDP), or "rows" (FSDP2's `fully_shard`).

    Python's and NumPy's global generators are seeded from the run's seed, in each process with other numbers; PyTorch's
    is left to the program.

    Raises `UsageError` for contradictory arguments, `Refused` where the run exists with other content, is complete or
    is being recorded, `EnvironmentFailure` for I/O and for a nonce that does not come.
    """
    options = Options(
        commitments, config, batch_size, steps, checkpoint_every, semantics, nonce, nonce_timeout, inputs, code, parent,
        secret_sha256, mode, state_every, accumulate, stream, strict, sharding,
    )  # fmt: skip
    begun = prepare(run_dir, options)
    import random

    import numpy

    own = f"/{begun.ranks.rank}" if begun.ranks.rank else ""
    random.seed(begun.torch_seed(f"python{own}"))
    numpy.random.seed(begun.torch_seed(f"numpy{own}") & 0xFFFFFFFF)
    begun.seeded = True
    return begun


def prepare(run_dir: str | Path, options: Options) -> Begun:
    """`begin` without touching any generator: for `record`, which is called when the program has seeded its own."""
    ranks = joined(options.nonce_timeout)
    replay = replaying.requested()
    if replay is not None:
        precommit, given = replaying.staged(replay)
        check_layout(replay, precommit, ranks)
        replaying.check_config(replay, precommit, plain_config(options.config))
        return Begun(replay.run_dir, precommit, given, None, replay, ranks=ranks)
    folder = Path(run_dir)
    locks: list[RunLock] = []
    launched = options.launcher is not None
    lacks: list[str] = []

    def said() -> bytes:
        seed_source(options.nonce)  # first of all: nothing is written for a nonce that can never be had
        refuse_unrepeatable()
        return introduction(plain_config(options.config), ranks)

    def judge(heard: list[bytes]) -> bytes:
        unlike = differing_processes(heard)
        if unlike and options.strict:
            raise Refused(f"begin(strict=True): {unlike[0]}")
        for sentence in unlike:
            talk(sentence)
        locks.append(RunLock(folder))
        content, documents, reason = describe(options, plain_config(options.config), ranks.world)
        lost = lacking(content, documents, "--input" if launched else "inputs=")
        lacks.extend([lost] if lost is not None else [])
        _look_ahead(reason, () if launched else lacks, options.strict)
        precommit = _settle(folder, content, documents, launched=launched)
        return _nonce(folder, precommit, options.nonce, options.nonce_timeout) + precommit.to_bytes()

    try:
        answer = ranks.decide(said, judge)
    except BaseException:
        for lock in locks:
            lock.take_back()
        raise
    precommit = Precommit.from_bytes(answer[_NONCE_BYTES:], what=PRECOMMIT_FILE)
    held = locks[0] if locks else None
    return Begun(
        folder, precommit, answer[:_NONCE_BYTES], held, strict=options.strict, ranks=ranks, launched=launched,
        lacks=lacks[0] if lacks else None,
    )  # fmt: skip


def _look_ahead(reason: str | None, lacks: Sequence[str], strict: bool) -> None:
    """Say what will not replay, or refuse to begin because of it."""
    obstacles = replay_obstacles()
    found = [*([reason] if reason is not None else []), *lacks, *obstacles]
    if strict and found:
        raise Refused(f"begin(strict=True): this run would not replay: {found[0]}")
    if reason is not None:
        talk(f"this run can be recorded but not replayed: {reason}")
    for sentence in lacks:
        talk(sentence)
    for obstacle in obstacles:
        talk(f"a replay may come out differently: {obstacle}")


def talk(sentence: str) -> None:
    """Say something to the person who trains, on standard error."""
    sys.stderr.write(f"pot: {sentence}\n")
    sys.stderr.flush()


def _settle(folder: Path, content: dict[str, Any], documents: dict[str, Committed], *, launched: bool) -> Precommit:
    """The pre-commitment on disk: the one that is there if it says the same, else a new one in an empty folder."""
    path = folder / PRECOMMIT_FILE
    if path.exists() or path.is_symlink():
        existing = Precommit.from_bytes(read_file(path, limit=MAX_PRECOMMIT_BYTES), what=str(path))
        recorded = existing.model_dump(mode="json", exclude_none=True)
        for value in (recorded, content):
            for key in ("run_id", "config_blake3", "environment_sha256"):  # digests of what is compared by itself
                value.pop(key, None)
        recorded["environment"].pop("notes", None)
        now = {**content, "environment": {"bits": content["environment"]["bits"]}}
        found = contradiction(recorded, now, launched=launched)
        if found is not None:
            untrained = not (folder / TRANSCRIPT_FILE).exists()
            ways = [*(["nothing was trained in it yet: delete it"] if untrained else []), *found.ways]
            way = "".join(f"{way}, or " for way in ways)
            raise Refused(
                f"{folder}: this run was begun with other content: {found.difference}; {way}use a new run folder"
            )
        _refuse_complete(folder)
        return existing
    others = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    others = [name for name in others if name != COMMITMENTS_FOLDER]  # of an attempt that died before it pre-committed
    if others:
        raise UsageError(f"{folder}: holds {others[0]} but no {PRECOMMIT_FILE}; choose an empty folder for the run")
    for name, committed in documents.items():
        kept = folder / COMMITMENTS_FOLDER / f"{name}.json"
        write_file(kept, committed.commitment.to_bytes())
        write_file(kept.with_name(name + committed.commitment.listing_suffix), bytes(committed.listing))
    precommit = Precommit.from_value({**content, "run_id": secrets.token_hex(32)}, what="pre-commitment")
    write_file(path, precommit.to_bytes())
    sync_folder(folder)
    return precommit


def _refuse_complete(folder: Path) -> None:
    if not (folder / TRANSCRIPT_FILE).exists():
        return
    events = load_transcript(folder).events
    if events and isinstance(events[-1], EndEvent):
        weights = checkpoint_name(int(events[-1].step))
        raise Refused(f"{folder}: this run is complete, its weights lie in {weights}; use a new run folder for another")


def _nonce(folder: Path, precommit: Precommit, source: str, timeout: float) -> bytes:
    path = folder / NONCE_FILE
    sha256 = precommit.sha256()
    if precommit.seed_source != "self":
        _wait(path, sha256, timeout, "--beacon ROUND.json " if precommit.seed_source == "beacon" else "")
    elif not path.exists():
        given = secrets.token_hex(32) if source == "self" else source.lower()
        document = {"version": "pot/seed-nonce/v1", "precommit_sha256": sha256, "nonce": given}
        write_file(path, SeedNonce.from_value(document, what="nonce").to_bytes())
        sync_folder(folder)
    return read_nonce(path, sha256)


def read_nonce(path: Path, precommit_sha256: str) -> bytes:
    """The nonce in a nonce file made for this pre-commitment. Raises `Refused` for another's, `Malformed`."""
    data = read_file(path, limit=MAX_NONCE_BYTES)
    found = SeedNonce.from_value(parse_canonical(data.removesuffix(b"\n"), what=str(path)), what=str(path))
    if found.precommit_sha256 != precommit_sha256:
        raise Refused(
            f"{path}: this nonce was given for the pre-commitment {found.precommit_sha256}, not for {precommit_sha256}"
        )
    return bytes.fromhex(found.nonce)


def _wait(path: Path, sha256: str, timeout: float, option: str) -> None:
    if path.exists():
        return
    talk(
        f"waiting up to {timeout:.0f} s for {path}; a verifier makes it with: pot challenge seed"
        f" {path.parent / PRECOMMIT_FILE} {option}--out {path} (pre-commitment {sha256})"
    )
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline:
            raise EnvironmentFailure(
                f"{path}: no nonce came within {timeout:.0f} s; start the same command again to wait on"
            )
        time.sleep(_POLL_SECONDS)
