"""The files of a circuit: what a verifier needs, and the folder a prover works in.

`VerifyingKit` holds settings, verifying key and SRS as bytes whose digests the circuit names; whoever opens one from a
certificate checks those digests here. A verifier who wants to trust nothing calls `rebuild` and compares.
`ProvingKit` adds the large disposable files: the compiled circuit and the proving key.

Shows: that the files are the ones the circuit names, or (`rebuild`) that the circuit is the one of its spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pot.canonical import read_file, sha256_hex, write_file
from pot.errors import Malformed, Refused
from pot.zk.circuit import Circuit, canonical_settings, onnx_bytes, proof_length, run_arguments, table_name
from pot.zk.packing import constants_vector, zero_vector
from pot.zk.srs import MAX_SRS_BYTES, srs_logrows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pot.zk.engine import Engine
    from pot.zk.packing import Vector
    from pot.zk.spec import CircuitSpec

__all__ = ["ProvingKit", "VerifyingKit", "build_kit", "commit_vectors", "open_kit", "rebuild", "rebuild_verifying_key"]

MAX_KEY_BYTES: Final = 16 << 20
MAX_SETTINGS_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class VerifyingKit:
    """A circuit and the bytes its digests name."""

    circuit: Circuit
    settings: bytes
    verifying_key: bytes
    srs: bytes

    def check(self) -> None:
        """Compare every digest, and the SRS's size with the circuit's. Raises `Refused` naming what differs."""
        named = (
            ("settings", self.settings, self.circuit.settings_sha256),
            ("verifying key", self.verifying_key, self.circuit.vk_sha256),
            ("SRS", self.srs, self.circuit.srs_sha256),
        )
        for name, data, expected in named:
            found = sha256_hex(data)
            if found != expected:
                raise Refused(
                    f"{name}: sha256 {found}, the circuit names {expected}; take it from the circuit's source"
                )
        if srs_logrows(self.srs) != self.circuit.spec.logrows:
            raise Refused("SRS: made for another number of rows than the circuit has")


@dataclass(frozen=True)
class ProvingKit:
    """A verifying kit and the folder with `compiled`, `pk`, `vk`, `srs`."""

    verifying: VerifyingKit
    folder: Path

    @property
    def circuit(self) -> Circuit:
        return self.verifying.circuit

    @property
    def spec(self) -> CircuitSpec:
        return self.verifying.circuit.spec


def build_kit(spec: CircuitSpec, srs: bytes, folder: Path, engine: Engine) -> ProvingKit:
    """Make all files of a circuit in `folder`: about 4 s and 0.2 GB on two cores for 64-32-10, 93 MB on disk.

    Raises `EngineFailure` (also when the circuit does not fit its rows), `MissingExtra`, `Malformed`.
    """
    _check_rows(spec, srs)
    folder.mkdir(parents=True, exist_ok=True)
    verifying = _build(spec, srs, engine, folder)
    for name, data in (
        ("vk", verifying.verifying_key),
        ("srs", srs),
        ("settings.json", verifying.settings),
        ("circuit.json", verifying.circuit.to_bytes()),
    ):
        write_file(folder / name, data)
    return ProvingKit(verifying, folder)


def open_kit(folder: Path) -> ProvingKit:
    """Open a folder made by `build_kit`; digests are checked. Raises `Malformed`, `Refused`, `UsageError`."""
    place = folder / "circuit.json"
    document = read_file(place, limit=MAX_SETTINGS_BYTES)
    verifying = VerifyingKit(
        circuit=Circuit.from_bytes(document, what=str(place)),
        settings=read_file(folder / "settings.json", limit=MAX_SETTINGS_BYTES),
        verifying_key=read_file(folder / "vk", limit=MAX_KEY_BYTES),
        srs=read_file(folder / "srs", limit=MAX_SRS_BYTES),
    )
    try:
        verifying.check()
    except Refused as error:
        raise Refused(f"{folder}: {error}") from None
    return ProvingKit(verifying, folder)


def rebuild(spec: CircuitSpec, srs: bytes, engine: Engine) -> VerifyingKit:
    """The verifying kit of a spec from nothing but the SRS: what a verifier compares a circuit with (a few seconds)."""
    return _build(spec, srs, engine, None)


def rebuild_verifying_key(spec: CircuitSpec, srs: bytes, engine: Engine) -> bytes:
    """The verifying key of a spec under an SRS."""
    return _keys(spec, srs, engine, None)[1]


def commit_vectors(kit: VerifyingKit, vectors: Sequence[Vector], engine: Engine) -> list[str]:
    """The KZG point of each vector, in few child processes however many vectors there are (30 ms each at k 13)."""
    return engine.commit(vectors, kit.settings, kit.verifying_key, kit.srs)


def _check_rows(spec: CircuitSpec, srs: bytes) -> None:
    if srs_logrows(srs) != spec.logrows:
        raise Malformed("SRS: made for another number of rows than the circuit has")


def _keys(spec: CircuitSpec, srs: bytes, engine: Engine, folder: Path | None) -> tuple[bytes, bytes, str, bytes]:
    _check_rows(spec, srs)
    onnx = onnx_bytes(spec)
    settings = canonical_settings(engine.settings(onnx, run_arguments(spec)), spec)
    setup = engine.setup(onnx, settings, srs, folder)
    if setup.tables != (table_name(spec),):  # a table that ended elsewhere would accept other limbs
        raise Malformed(f"ezkl built other lookup tables than {table_name(spec)}: {', '.join(setup.tables)[:200]}")
    return settings, setup.verifying_key, setup.version, onnx


def _build(spec: CircuitSpec, srs: bytes, engine: Engine, folder: Path | None) -> VerifyingKit:
    settings, key, version, onnx = _keys(spec, srs, engine, folder)
    constants, zero = engine.commit([constants_vector(spec), zero_vector(spec)], settings, key, srs)
    circuit = Circuit(
        version="pot/circuit/v1",
        family="exact",
        spec=spec,
        ezkl_version=version,
        onnx_sha256=sha256_hex(onnx),
        settings_sha256=sha256_hex(settings),
        vk_sha256=sha256_hex(key),
        srs_sha256=sha256_hex(srs),
        proof_bytes=str(proof_length(spec)),
        constants_point=constants,
        zero_point=zero,
    )
    return VerifyingKit(circuit, settings, key, srs)
