"""What a run promises, from what the program says about itself: data, configuration, code, environment, order, cadence.

Shows / does not show: see `pot.recording.precommit`, which is the promise's form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pot.commitments.order import steps_per_epoch
from pot.errors import Malformed, UsageError
from pot.recording.config import config_digest
from pot.recording.environment import capture, environment_sha256
from pot.recording.precommit import Parent
from pot.recording.program import describe_program

if TYPE_CHECKING:
    from pot.data.commit import Committed

__all__ = ["NONCE_TIMEOUT", "Options", "describe", "lacking", "seed_source"]

DEFAULT_CHECKPOINT_EVERY: Final = 50
DEFAULT_STATE_EVERY: Final = 100
QUICKNET_CHAIN: Final = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
"""The chain hash of drand's quicknet, by which a pre-commitment names it."""

NONCE_TIMEOUT: Final = 600.0


@dataclass(frozen=True)
class Options:
    """The arguments of `begin`, which explains them."""

    commitments: Sequence[Committed | str | Path] = ()
    config: Mapping[str, Any] | None = None
    batch_size: int | None = None
    steps: int | None = None
    checkpoint_every: int | None = None
    semantics: Literal["float", "exact"] = "float"
    nonce: str = "self"
    nonce_timeout: float = NONCE_TIMEOUT
    inputs: Sequence[str | Path] = ()
    code: Sequence[str | Path] = ()
    parent: Parent | None = None
    secret_sha256: str | None = None
    mode: Literal["segment", "step"] = "segment"
    state_every: int | None = None
    accumulate: int = 1
    stream: bool = False
    strict: bool = False
    sharding: Literal["replicated", "rows"] = "replicated"
    launcher: Literal["attach"] | None = None
    """Not of `begin`: who records a script that does not record itself."""


def describe(
    options: Options, config: dict[str, Any], processes: int = 1
) -> tuple[dict[str, Any], dict[str, Committed], str | None]:
    """The pre-commitment's content without its run id, the commitments by name, and why the run cannot be replayed
    (None: it can). `config`: `plain_config` of the options'. `processes`: that train together. Raises `UsageError`.
    """
    entries, documents, shards = _describe_data(options.commitments)
    total = sum(int(entry["records"]) for entry in entries)
    found = config.get("epochs")
    epochs = found if isinstance(found, int) and found > 0 else 0
    _refuse_missing(options, config, epochs > 0)
    micro = _whole("batch_size", options.batch_size, config, None)
    batch = micro * _whole("accumulate", options.accumulate, {}, 1) * processes
    implied = epochs * steps_per_epoch(total, batch) if epochs else None
    environment = capture()
    inputs, code = [Path(path) for path in options.inputs], [Path(path) for path in options.code]
    program, reason = describe_program(inputs, shards, code)
    if options.launcher is not None and program.command:
        program = program.model_copy(update={"launcher": options.launcher})
    content: dict[str, Any] = {
        "version": "pot/precommit/v1",
        "semantics": options.semantics,
        "data": entries,
        "config": config,
        "config_blake3": config_digest(config),
        "program": program.model_dump(mode="json", exclude_none=True),
        "environment": environment,
        "environment_sha256": environment_sha256(environment),
        "order": {"method": "stream/1" if options.stream else "feistel/1", "batch": str(batch), "drop_last": True},
        "steps": str(_whole("steps", options.steps, config, implied)),
        **_cadence(options, config),
        **seed_source(options.nonce),
    }
    if processes > 1:
        content["layout"] = _layout(options, processes)
    if micro != batch:
        if options.stream:
            raise UsageError("begin: of a stream whole steps are recorded; leave accumulate= out, or number records")
        content["order"]["micro"] = str(micro)
    if options.parent is not None:
        content["parent"] = options.parent.model_dump(mode="json")
    if options.secret_sha256 is not None:
        content["secret_sha256"] = options.secret_sha256
    return content, documents, reason


def lacking(content: Mapping[str, Any], documents: Mapping[str, Committed], give: str) -> str | None:
    """Which committed files are not among the inputs, in a sentence; None where all are, or where records lie in none.

    `give`: how this program's inputs are named. A commitment of a program's own data set has no files to look for.
    """
    named = {file["sha256"] for file in content["program"]["data_files"]}
    for name, committed in documents.items():
        shards = committed.commitment.shards
        lost = [shard.name for shard in shards if shard.sha256 not in named]
        if lost:
            what = f"{lost[0]}, which" if len(shards) == 1 else f"{len(lost)} files, first {lost[0]}, of those that"
            return (
                f"the inputs lack {what} {name} commits to: no audit can recompute its roots, and a replay lacks what"
                f" is not named; give the committed files by {give}"
            )
    return None


def _layout(options: Options, processes: int) -> dict[str, str]:
    if options.sharding not in ("replicated", "rows"):
        raise UsageError(f'begin: sharding is {options.sharding!r}; it is "replicated" or "rows"')
    if options.stream:
        raise UsageError("begin: a stream can be recorded by one process only; give every record a number instead")
    return {"processes": str(processes), "sharding": options.sharding}


def seed_source(nonce: str) -> dict[str, Any]:
    """Who gives the nonce, from the option: "self" and hex digits, "verifier", or "beacon:CHAIN:ROUND".

    Raises `UsageError` for anything else.
    """
    if not isinstance(nonce, str) or not re.fullmatch(r"self|verifier|beacon.*|[0-9a-fA-F]{64}", nonce, re.DOTALL):
        raise UsageError(
            f'begin: nonce is {nonce!r:.100}; it is "self", "verifier", "beacon:quicknet:ROUND" or 64 hex digits'
        )
    if not nonce.startswith("beacon"):
        return {"seed_source": "verifier" if nonce == "verifier" else "self"}
    found = re.fullmatch(r"beacon:(quicknet|[0-9a-f]{64}):([1-9][0-9]{0,17})", nonce, re.ASCII)
    if found is None:
        raise UsageError(
            f"begin: nonce {nonce[:100]!r} must name a beacon's coming round, as beacon:quicknet:12345678, or with the"
            " chain's hash in place of quicknet"
        )
    chain = QUICKNET_CHAIN if found[1] == "quicknet" else found[1]
    return {"seed_source": "beacon", "beacon": {"chain": chain, "round": found[2]}}


def _cadence(options: Options, config: Mapping[str, Any]) -> dict[str, str]:
    """How often a root is taken, and how often files are written beside it."""
    every = _whole("checkpoint_every", options.checkpoint_every, config, DEFAULT_CHECKPOINT_EVERY)
    given = options.checkpoint_every is not None or "checkpoint_every" in config
    wanted = options.state_every if options.state_every is not None else config.get("state_every")
    state = _whole("state_every", options.state_every, config, every if given else DEFAULT_STATE_EVERY)
    if options.mode == "step":
        every, state = 1, state if given or wanted is not None else DEFAULT_STATE_EVERY
    elif options.mode != "segment":
        raise UsageError(f'begin: mode is {options.mode!r}; it is "segment" or "step"')
    if state % every:
        raise UsageError(f"begin: state_every is {state}, which is not a multiple of checkpoint_every, {every}")
    found = {"checkpoint_every": str(every)}
    return found if state == every else {**found, "state_every": str(state)}


def _refuse_missing(options: Options, config: Mapping[str, Any], by_epochs: bool) -> None:
    """Name everything at once that has no default and was not given. Raises `UsageError`."""
    given = {"steps": options.steps, "batch_size": options.batch_size}
    missing = [name for name, value in given.items() if value is None and config.get(name) is None]
    if by_epochs and "steps" in missing:
        missing.remove("steps")
    if missing:
        what = "is neither an argument" if len(missing) == 1 else "are neither arguments"
        wanted = " and ".join(f"{name}=" for name in missing)
        raise UsageError(f"begin: {' and '.join(missing)} {what} nor in config; give {wanted}")


def _whole(name: str, given: int | None, config: Mapping[str, Any], default: int | None) -> int:
    value = given if given is not None else config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"begin: {name} is {value!r}, a whole number above 0 is expected")
    return value


def _describe_data(
    commitments: Sequence[Committed | str | Path],
) -> tuple[list[dict[str, str]], dict[str, Committed], dict[str, tuple[str, int]]]:
    from pot.data.commit import load_committed

    if isinstance(commitments, (str, Path)) or not commitments:
        raise UsageError(
            "begin: commitments= must list the commitments of the training data; make one with:"
            " pot data commit PATH --view json/1 --out C.json"
        )
    entries: list[dict[str, str]] = []
    documents: dict[str, Committed] = {}
    shards: dict[str, tuple[str, int]] = {}
    for number, item in enumerate(commitments, 1):
        named = isinstance(item, (str, Path))
        try:
            committed = load_committed(Path(item)) if isinstance(item, (str, Path)) else item
        except Malformed as error:
            raise Malformed(f"{error}; commitments= names files that 'pot data commit' wrote, not the data") from None
        name = Path(item).stem if isinstance(item, (str, Path)) and named else f"data-{number}"
        commitment = committed.commitment
        if commitment.role != "training":
            raise UsageError(
                f"begin: {name} is committed with the role {commitment.role}; commit the training data instead"
            )
        if name in documents:
            raise UsageError(f"begin: two commitments are called {name}; rename one of the files")
        documents[name] = committed
        shards.update({shard.sha256: (name, place) for place, shard in enumerate(commitment.shards)})
        entries.append(
            {
                "name": name,
                "commitment_sha256": commitment.sha256(),
                "view": commitment.view,
                "records": commitment.records.count,
                "records_root_blake3": commitment.records.root_blake3,
                "set_root_blake3": commitment.set.root_blake3,
            }
        )
    return entries, documents, shards
