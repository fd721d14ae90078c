"""The pre-commitment: what a run promises before its first step, written to `run/precommit.json`.

Spec: `specs/transcript.md`, "Pre-commitment". Data, configuration, code, environment, parent, order and cadence are
fixed here; hyper-parameters come from nowhere else. The run's seed depends on this document's SHA-256.

Shows: that whoever holds an earlier copy (a log, a verifier who gave a nonce) knows what the run had to be.
Does not show: when it was written, nor that training followed it; that is what the transcript and audits are for.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, JsonValue, StringConstraints, model_validator

from pot.canonical import Count, Document, Hex32, sha256_hex
from pot.commitments.order import MAX_ORDER_SIZE
from pot.recording.config import config_digest
from pot.recording.environment import environment_sha256

__all__ = [
    "MAX_BATCH", "MAX_PRECOMMIT_BYTES", "MAX_PROCESSES", "BeaconRound", "CommittedData", "InputFile", "Layout", "Order",
    "Parent", "Precommit", "Program", "ProgramFile", "RelativePath", "SeedBeacon", "SeedNonce", "files_due",
    "other_inputs", "row_processes", "total_records",
]  # fmt: skip

MAX_PRECOMMIT_BYTES: Final = 1 << 20  # a config and some hundred file digests; statements refer to it by digest
_MAX_PATH_BYTES: Final = 512
MAX_BATCH: Final = 1 << 20  # every reader computes every batch: a larger one would keep it busy for ever
MAX_PROCESSES: Final = 1 << 16  # above any cluster; a reader may make something for each
_MAX_STEPS: Final = 1 << 62  # a step's number enters the state digest as 8 bytes


def _relative(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\x00" in path:
        raise ValueError("a path must be relative, inside the program's folder, with forward slashes")
    if str(PurePosixPath(path)) != path or len(path.encode("utf-8", "replace")) > _MAX_PATH_BYTES:
        raise ValueError(f"a path must be in its shortest form and of at most {_MAX_PATH_BYTES} bytes")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
"""A file's path below the folder that the program is started in, with forward slashes, without "." and ".."."""


class CommittedData(Document):
    """One dataset commitment whose records the run may use; several follow each other in the order of the list."""

    name: str
    commitment_sha256: Hex32
    view: str
    records: Count
    records_root_blake3: Hex32
    set_root_blake3: Hex32


class ProgramFile(BaseModel):
    """A file of code."""

    model_config = Document.model_config

    path: RelativePath
    sha256: Hex32


class InputFile(BaseModel):
    """A file that the program reads; where it holds records, `dataset` names the entry of `data`, `shard` its place."""

    model_config = Document.model_config

    path: RelativePath
    bytes: Count
    sha256: Hex32
    dataset: str | None = None
    shard: Count | None = None


class Program(Document):
    """What was started: the script's path and its arguments, its files and what it reads. Empty: not replayable."""

    command: tuple[str, ...]
    files: tuple[ProgramFile, ...]
    data_files: tuple[InputFile, ...]
    launcher: Literal["attach"] | None = None


class Order(Document):
    """The order of records. `batch`: those of one optimizer step, over all processes and micro-batches.

    "feistel/1": a keyed permutation per epoch; the incomplete last batch of an epoch is dropped. "stream/1": what an
    iterable dataset yields; no seed fixes it. `micro`: records of one micro-batch of one process.
    """

    method: Literal["feistel/1", "stream/1"]
    batch: Count
    drop_last: Literal[True]
    micro: Count | None = None


class Layout(Document):
    """A distributed run: how many processes take part, each with the whole state or with rows of every tensor."""

    processes: Count
    sharding: Literal["replicated", "rows"]


class SeedBeacon(Document):
    """The round of a drand beacon (named by its chain's hash) whose randomness is the nonce."""

    chain: Hex32
    round: Count


class BeaconRound(Document):
    """A published round: `signature` is the BLS signature of drand's quicknet, a G1 point of 48 bytes, hex."""

    chain: Hex32
    round: Count
    signature: Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{96}\z")]

    @property
    def randomness(self) -> str:
        """SHA-256 of the signature, hex: what drand calls the round's randomness. The signature is not checked here."""
        return sha256_hex(bytes.fromhex(self.signature))


class Parent(Document):
    """The certificate (its DSSE payload) and the model that W_0 was made from, by a declared operation."""

    certificate_sha256: Hex32
    model_sha256: Hex32
    operation: Literal["none", "quantise/1"]


class Precommit(Document):
    """`pot/precommit/v1`."""

    version: Literal["pot/precommit/v1"]
    run_id: Hex32
    semantics: Literal["float", "exact"]
    data: tuple[CommittedData, ...]
    config: dict[str, JsonValue]
    config_blake3: Hex32
    program: Program
    environment: dict[str, JsonValue]
    environment_sha256: Hex32
    parent: Parent | None = None
    order: Order
    layout: Layout | None = None
    steps: Count
    checkpoint_every: Count
    state_every: Count | None = None
    seed_source: Literal["self", "verifier", "beacon"]
    beacon: SeedBeacon | None = None
    secret_sha256: Hex32 | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.data:
            raise ValueError("data: at least one dataset commitment is needed")
        if len({item.name for item in self.data}) != len(self.data):
            raise ValueError("data: two commitments have the same name")
        if self.config_blake3 != config_digest(self.config):
            raise ValueError("config_blake3 is not the digest of config")
        if self.environment_sha256 != environment_sha256(self.environment):
            raise ValueError("environment_sha256 is not the digest of environment")
        if (self.seed_source == "beacon") != (self.beacon is not None):
            raise ValueError("beacon must be there exactly if seed_source is beacon")
        if self.beacon is not None and int(self.beacon.round) < 1:
            raise ValueError("beacon.round must be at least 1")
        _check_parent(self)
        _check_sizes(self)
        _check_program(self.program, {item.name for item in self.data})
        return self


def _check_parent(precommit: Precommit) -> None:
    """A released model is floats, an exact run begins with integers: nothing may be read as the other. `ValueError`."""
    if precommit.parent is not None and (precommit.parent.operation == "quantise/1") != (
        precommit.semantics == "exact"
    ):
        raise ValueError("parent.operation must be quantise/1 in an exact run, none in a float run")


def _check_sizes(precommit: Precommit) -> None:
    """Steps, cadence and batch, and how a batch is divided. Raises `ValueError`."""
    steps, every, batch = (int(n) for n in (precommit.steps, precommit.checkpoint_every, precommit.order.batch))
    if steps < 1 or every < 1 or batch < 1:
        raise ValueError("steps, checkpoint_every and order.batch must be at least 1")
    if steps > _MAX_STEPS:
        raise ValueError(f"steps exceeds {_MAX_STEPS}")
    if not batch <= total_records(precommit) <= MAX_ORDER_SIZE:
        raise ValueError("order.batch must not exceed the number of committed records, nor these 2^48")
    if batch > MAX_BATCH:
        raise ValueError(f"order.batch exceeds {MAX_BATCH}")
    if precommit.state_every is not None and (int(precommit.state_every) < 1 or int(precommit.state_every) % every):
        raise ValueError("state_every must be a multiple of checkpoint_every")
    processes, micro = 1, 1
    if precommit.layout is not None:
        processes = int(precommit.layout.processes)
        if not 2 <= processes <= MAX_PROCESSES:
            raise ValueError(f"layout.processes must be between 2 and {MAX_PROCESSES}")
    if precommit.order.micro is not None:
        micro = int(precommit.order.micro)
        if precommit.order.method != "feistel/1":
            raise ValueError("order.micro belongs to method feistel/1")
    if micro < 1 or batch % (micro * processes):
        raise ValueError("order.batch must be a multiple of order.micro times layout.processes")


def _check_program(program: Program, datasets: set[str]) -> None:
    """Paths that can lie beside each other, and a command that is one of the files. Raises `ValueError`."""
    for file in program.data_files:
        if file.dataset is not None and file.dataset not in datasets:
            raise ValueError(f"program.data_files: {file.path} belongs to {file.dataset!r}, which data does not list")
    if program.command and program.command[0] not in {file.path for file in program.files}:
        raise ValueError("program.command must begin with one of program.files")
    if program.command and program.command[0].startswith("-"):
        raise ValueError("program.command must begin with a script, not with an option of Python")
    if any("\x00" in word for word in program.command):
        raise ValueError("program.command must not hold a NUL character")
    paths = [file.path for file in program.files] + [file.path for file in program.data_files]
    if len(set(paths)) != len(paths):
        raise ValueError("program: a path is listed twice")
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    if not folders.isdisjoint(paths):
        raise ValueError(f"program: {sorted(folders.intersection(paths))[0]} is listed as a file and as a folder")


class SeedNonce(Document):
    """`run/nonce.json`: the nonce that somebody gave after seeing the pre-commitment, or a beacon's round."""

    version: Literal["pot/seed-nonce/v1"]
    precommit_sha256: Hex32
    nonce: Hex32
    beacon: BeaconRound | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.beacon is not None and self.nonce != self.beacon.randomness:
            raise ValueError("nonce is not the SHA-256 of the beacon's signature")
        return self


def files_due(precommit: Precommit, step: int) -> bool:
    """Whether the checkpoint of `step` must have files: the first, the last, and every `state_every` steps."""
    return step in (0, int(precommit.steps)) or step % int(precommit.state_every or precommit.checkpoint_every) == 0


def row_processes(precommit: Precommit) -> int:
    """Among how many processes the rows of model and optimizer are divided; 1 where each holds the whole state."""
    layout = precommit.layout
    return int(layout.processes) if layout is not None and layout.sharding == "rows" else 1


def total_records(precommit: Precommit) -> int:
    """Records over all of the run's datasets; global record numbers run through them in the order of `data`."""
    return sum(int(item.records) for item in precommit.data)


def other_inputs(precommit: Precommit) -> list[str]:
    """Paths of what the program reads that holds no committed records: nothing shows what it takes from there."""
    return [file.path for file in precommit.program.data_files if file.dataset is None]
