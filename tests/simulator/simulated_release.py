"""An honest tiny release bundle in memory, and every place where a test can bend it into a lie.

Two models: a parent trained in floats and a child fine-tuned in exact integers. Commitments, orders, chains, digests,
set proofs, challenges and signatures are real. Weights and the insides of step proofs are invented; the point of a
vector is its SHA-512, and `StandIn` stands in for ezkl below the real checks of step proofs. `bend(stage, change)`
changes a value on its way; what is made from it later follows, so a lie is as consistent as its teller can make it.

Stages, in order: for `parent` and `child` each `.precommit` `.events` `.audits` `.data_audits` `.predicate`
`.statement`, and `child.steps`, the claim of step proofs; then `objects`, `lines`, `files`, `policy`. `simulated_data`
adds claims about data, `opened_release` opens what the points commit to.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from attest.bundle import ReleaseBundle, SigstoreBundle, join_lines
from attest.envelope import sign_envelope
from attest.predicate import AUDIT, DATA_AUDIT, NON_CLAIMS, TRAINING_CERTIFICATE
from attest.trust.keys import PrivateKey, generate
from attest.verdict.codes import CODES
from attest.verdict.policy import Policy, PolicyDocument
from attest.verdict.report import Report
from attest.verdict.verify import verify
from pot.audit.challenges.challenge import Challenge, new_challenge
from pot.canonical import canonical_bytes, derive, sha256_hex, write_file
from pot.commitments.dataset import DatasetCommitment, Shard, commit_digests, split_digests
from pot.commitments.hashing import record_digest
from pot.commitments.model import ModelFile, model_digest, names_digest
from pot.commitments.order import batch_records
from pot.commitments.seed import run_seed
from pot.commitments.setree import SetTree
from pot.commitments.setree_verify import key_of
from pot.commitments.state import entries_from_safetensors, json_digest, state_digest, tensors_digest
from pot.data.exclude_verify import Exclusion, ExclusionHeader
from pot.recording.config import config_digest
from pot.recording.cursor import cursor_value
from pot.recording.environment import environment_sha256
from pot.recording.state import checkpoint_files
from pot.recording.transcript import batch_digest, previous_digest
from pot.zk.circuit import Circuit
from pot.zk.circuits.field import encode
from pot.zk.circuits.packing import blinds_of, state_vectors
from pot.zk.kit import KitPart, VerifyingKit
from pot.zk.opened_state import state_of
from pot.zk.semantics.builder import Builder
from pot.zk.semantics.fixed import dequantise, quantise
from pot.zk.semantics.program import Program
from pot.zk.verifier import verify_steps

__all__ = [
    "SECRET",
    "Simulation",
    "StandIn",
    "commitment_of",
    "data_files",
    "exclusion_file",
    "failed",
    "judge",
    "key",
    "listed",
    "made_points",
    "relink",
    "shard_of",
    "sign",
    "simulated_program",
    "unchecked",
    "written",
]

ZERO = "0" * 64
GOOD_TAIL = b"honest"
SECRET = bytes(range(32))
EZKL_VERSION = "23.0.5"


@cache
def key(name: str) -> PrivateKey:
    """A signing key for a name; auditors use the other algorithm."""
    return generate("ecdsa-p256" if "auditor" in name else "ed25519")


def shard_of(names: list[str]) -> Shard:
    """The one file that invented records are read from, whatever the view."""
    data = "\n".join(names).encode()
    blake3 = record_digest(data).hex()
    return Shard(name="shard", bytes=str(len(data)), records=str(len(names)), sha256=sha256_hex(data), blake3=blake3)


def commitment_of(role: str, names: list[str], view: str = "pixels/1") -> tuple[DatasetCommitment, bytes]:
    """A commitment to invented records, and its digest list."""
    digests = b"".join(record_digest(name.encode()) for name in names)
    return commit_digests(role, view, digests, len(names), [shard_of(names)]), digests  # type: ignore[arg-type]


def exclusion_file(training: DatasetCommitment, digests: bytes, exclusion: DatasetCommitment, asked: bytes) -> bytes:
    """What `pot data exclude` writes for these."""
    header = ExclusionHeader(
        version="pot/exclusion/v1", training_sha256=training.sha256(), exclusion_sha256=exclusion.sha256()
    )
    keys = {key_of(digest) for digest in split_digests(asked)}
    return Exclusion(header, SetTree.build(split_digests(digests)).prove_absent(keys)).to_bytes()


def data_files(name: str, commitment: DatasetCommitment) -> list[dict[str, str]]:
    """The program's files that hold a dataset's records."""
    return [
        {"path": f"{name}-{at}", "bytes": shard.bytes, "sha256": shard.sha256, "dataset": name, "shard": str(at)}
        for at, shard in enumerate(commitment.shards)
    ]


def relink(events: list[dict[str, Any]]) -> bytes:
    """A transcript's bytes with index and previous digest of every line set right."""
    out, previous = b"", ZERO
    for index, event in enumerate(events):
        line = canonical_bytes({**event, "index": str(index), "previous": previous})
        previous = previous_digest(line)
        out += line + b"\n"
    return out


def sign(statement: dict[str, Any], signer: PrivateKey) -> bytes:
    """One line of claims.jsonl."""
    return SigstoreBundle.make(sign_envelope(canonical_bytes(statement), signer), signer.public.hint()).to_bytes()


def weights(name: str, step: int) -> bytes:
    """Invented float weights."""
    draw = np.random.default_rng(int.from_bytes(derive("test", name.encode(), bytes([step]))[:4], "big"))
    arrays = {"0.weight": draw.normal(size=(3, 4)), "0.bias": draw.normal(size=3)}
    return serialise({tensor: array.astype("<f4") for tensor, array in arrays.items()})


def serialise(arrays: dict[str, np.ndarray]) -> bytes:
    """Safetensors bytes."""
    return bytes(safetensors.numpy.save(arrays))


def integers(data: bytes) -> bytes:
    """`quantise/1` of a float file."""
    arrays = {e.name: np.frombuffer(e.data, "<f4").reshape(e.shape) for e in entries_from_safetensors(data)}
    return serialise({name: quantise(array) for name, array in arrays.items()})


def floats(data: bytes) -> bytes:
    """`dequantise/1` of an integer file."""
    arrays = {e.name: np.frombuffer(e.data, "<i8").reshape(e.shape) for e in entries_from_safetensors(data)}
    return serialise({name: dequantise(array) for name, array in arrays.items()})


def model_component(data: bytes) -> str:
    """The digest that a checkpoint holds for these weights."""
    return tensors_digest("model", entries_from_safetensors(data))


def point(*labels: object) -> str:
    """An invented point: 64 bytes, hex."""
    seed = ":".join(map(str, labels)).encode()
    return (derive("test/point", seed) + derive("test/point2", seed)).hex()


def made_points(kit: Any, vectors: Any) -> list[str]:
    """In place of KZG points: as binding as those, and as fast as a hash."""
    return [hashlib.sha512(encode(vector)).hexdigest() for vector in vectors]


def simulated_program(limb_bits: int = 12, *, momentum: bool = False, slack: int = 0) -> Program:
    """The child's step: one linear layer on images of 2 x 2 pixels, three classes, half the squared error.

    `momentum`: the weight's gradients are gathered, and halved at every step. `slack`: for steps taken in floats.
    """
    b = Builder(limb_bits=limb_bits)
    w = b.state("0.weight", [3, 4], bits=28, width=34)
    c = b.state("0.bias", [3], bits=28, width=34)
    x = b.batch("image", [8, 4], kind="unsigned", bits=4, width=5)
    y = b.batch("label", [8, 3], kind="marks")
    z = b.add(b.matmul(x, b.permute(w, [1, 0])), c)
    g = b.round(b.sub(z, b.shift(y, b.bits(z))), limb_bits - 4, limbs=1)
    moved = b.matmul(b.permute(g, [1, 0]), x)
    if momentum:
        m = b.state("0.weight.momentum_buffer", [3, 4], bits=b.bits(moved), width=22)
        moved = b.add(b.round(b.scaled(m, 1), b.bits(moved), limbs=3), moved)
        b.set_next(m, moved)
    b.set_next(w, b.sub(w, b.scaled(moved, 6)), slack=slack)
    b.set_next(c, b.sub(c, b.scaled(b.reshape(b.sum(g, [0]), [3]), 6)), slack=slack)
    return b.program(label="simulated", batch=8, max_steps=64)


@dataclass
class Model:
    """What the simulation knows about one of its two models while it builds."""

    name: str
    precommit: dict[str, Any] = field(default_factory=dict)
    transcript: bytes = b""
    released: bytes = b""
    certificate_sha256: str = ""
    model_sha256: str = ""
    audits: list[str] = field(default_factory=list)


@dataclass
class Simulation:
    """Builds the release bundle of the child, and the policy that it passes."""

    seed_source: str = "verifier"
    bends: dict[str, list[Callable[[Any], Any]]] = field(default_factory=lambda: defaultdict(list))
    objects: dict[str, bytes] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    claimants: list[Callable[[str], list[dict[str, Any]]]] = field(default_factory=list)
    """Functions that make further claims of a model; what they refer to is theirs to put."""
    every_step: bool = False
    """Whether every step of the child is proven, or those that a verifier drew."""
    data_auditors: list[Callable[[str], list[dict[str, Any]]]] = field(default_factory=list)
    """Functions that make data audits of a model's data."""
    nonces: dict[str, str] = field(default_factory=dict)
    """Nonces of the runs' seeds, by model, where they are not invented."""

    def __post_init__(self) -> None:
        """The data: two training sets, one exclusion set."""
        self.training = {
            "parent": commitment_of("training", [f"parent {number}" for number in range(48)]),
            "child": commitment_of("training", [f"child {number}" for number in range(32)]),
        }
        self.x1 = commitment_of("exclusion", [f"x1 {number}" for number in range(12)])
        self.steps = {"parent": 8, "child": 6}
        self.batch = {"parent": 4, "child": 8}
        self.every = 2
        self.models = {"parent": Model("parent"), "child": Model("child")}
        self.signers = {"parent": "developer", "child": "developer"}
        self.kit = self._kit()
        self.circuit = self.kit.circuit

    def bend(self, stage: str, change: Callable[[Any], Any]) -> Simulation:
        """Change a stage's value in place, or replace it by what `change` returns."""
        self.bends[stage].append(change)
        return self

    def put(self, data: bytes) -> str:
        """Add an object."""
        sha256 = sha256_hex(data)
        self.objects[sha256] = data
        return sha256

    def release(self) -> ReleaseBundle:
        """The release bundle; builds everything."""
        self.objects.clear()
        self.lines.clear()
        self._train("parent", None)
        self._train("child", self.models["parent"])
        files = {"model.safetensors": self.models["child"].released, "config.json": b"{}"}
        files = self._bent("files", files)
        objects = self._bent("objects", dict(self.objects))
        lines = self._bent("lines", list(self.lines))
        return ReleaseBundle("release", tuple(listed(files)), files.get("model.safetensors"), tuple(lines), objects)

    def policy(self) -> Policy:
        """The policy that the honest release bundle passes."""
        x1 = self.x1[0]
        document = {
            "version": "pot/policy/v1",
            "roles": {
                "developer": [{"name": "Acme", "public_key": key("developer").public.pem().decode()}],
                "auditor": [{"name": "Argus", "public_key": key("auditor").public.pem().decode()}],
            },
            "require": [
                {"claim": "training-provenance", "level": "audited" if self.seed_source == "verifier" else "committed"},
                {
                    "claim": "dataset-exclusion",
                    "level": "audited",
                    "exclusion": {
                        "view": x1.view,
                        "records": x1.records.count,
                        "root_blake3": x1.records.root_blake3,
                    },
                },
                {"claim": "steps-proven", "level": "audited", "verifier_chosen": True},
            ],
            "coverage": {"forged": "0.5", "detect": "0.8"},
            "limits": {"segment_steps": "2"},
            "zk": {
                "circuits": [self.circuit.sha256()],
                "srs": [{"sha256": self.circuit.srs_sha256, "class": "verifier"}],
            },
        }
        return Policy.of(PolicyDocument.from_value(self._bent("policy", document), what="policy"))

    def verify(self, policy: Policy | None = None) -> Report:
        """The report on the release bundle, under its own policy unless another is given."""
        return verify(self.release(), policy or self.policy(), step_verifier=judge, point_maker=made_points)

    # what is built ---------------------------------------------------------------------------------------------------

    def _bent(self, stage: str, value: Any) -> Any:
        for change in self.bends[stage]:
            replaced = change(value)
            value = value if replaced is None else replaced
        return value

    def _kit(self) -> VerifyingKit:
        program = simulated_program()
        srs = (9).to_bytes(4, "little") + bytes((128 << 9) + 256)
        part = KitPart(
            canonical_bytes({"run_args": {"input_visibility": "KZGCommit", "output_visibility": "Public"}}), b"vk"
        )
        self.inputs = ["before.0", "after.0", "batch.0", "witness.0", "constants", "challenge"]
        document = {
            "inputs": self.inputs,
            "powers": [[0, 1, 4]],
            "onnx_sha256": ZERO,
            "settings_sha256": sha256_hex(part.settings),
            "vk_sha256": sha256_hex(part.verifying_key),
            "proof_bytes": str(64 * len(self.inputs) + len(GOOD_TAIL)),
        }
        value = {
            "version": "pot/circuit/v2",
            "family": "exact",
            "label": program.label,
            "program_sha256": program.sha256(),
            "batch": program.batch,
            "parameters": program.parameters,
            "max_steps": program.max_steps,
            "logrows": 9,
            "columns": 2,
            "blinds": 8,
            "ezkl_version": EZKL_VERSION,
            "srs_sha256": sha256_hex(srs),
            "constants_point": point("constants"),
            "parts": [document],
        }
        return VerifyingKit(Circuit.from_value(value, what="circuit"), program, [part], srs)

    def put_kit(self) -> None:
        """The circuit and everything that it names, as objects."""
        for data in (self.circuit.to_bytes(), self.kit.program.to_bytes(), self.kit.srs):
            self.put(data)
        for part in self.kit.parts:
            self.put(part.settings)
            self.put(part.verifying_key)

    def state(self, name: str, step: int) -> bytes:
        """The integer weights of a model after a step."""
        start = self.models["parent"].released
        return integers(weights(name, step)) if step else integers(start)

    def state_point(self, name: str, step: int) -> str:
        """The point of the state after a step."""
        program, layout = self.kit.program, self.kit.layout
        held = entries_from_safetensors(self.state(name, step))
        exact = any(entry.dtype == "I64" for entry in held)
        tensors = state_of(program, held, [], semantics="exact" if exact else "float", start=step == 0)
        vectors = state_vectors(program, layout, tensors, blinds_of(layout, SECRET, "state", step))
        return "".join(made_points(self.kit, vectors))

    def batch_point(self, name: str, step: int, records: list[int]) -> str:
        """The point of a step's batch; invented, for invented records have no pixels."""
        return point(name, "batch", step)

    def _train(self, name: str, parent: Model | None) -> None:
        model = self.models[name]
        commitment = self.training[name][0]
        model.precommit = self._bent(f"{name}.precommit", self._precommit(name, parent))
        precommit_sha256 = self.put(canonical_bytes(model.precommit))
        self.put(commitment.to_bytes())
        nonce = self.nonces.get(name) or derive("test/nonce", name.encode()).hex()
        events, states = self._events(name, precommit_sha256, nonce, parent)
        events = self._bent(f"{name}.events", events)
        model.transcript = relink(events)
        transcript_sha256 = self.put(model.transcript)
        model.released = states[-1] if parent is None else floats(states[-1])
        operations = []
        if parent is not None:
            operations = [
                {"type": "quantise/1", "input_sha256": self.put(parent.released), "output_sha256": self.put(states[0])},
                {
                    "type": "dequantise/1",
                    "input_sha256": self.put(states[-1]),
                    "output_sha256": sha256_hex(model.released),
                },
            ]
        model.audits = self._audits(name, precommit_sha256, transcript_sha256, nonce)
        results = self._bent(f"{name}.data_audits", [result for make in self.data_auditors for result in make(name)])
        model.audits += [self.add_data_audit(result) for result in results]
        files = listed({"model.safetensors": model.released, "config.json": b"{}"})
        proven = self._step_proofs(precommit_sha256, events) if parent is not None else []
        claims: list[dict[str, Any]] = [{"type": "training-provenance"}, self._exclusion(name)]
        claims += [claim for make in self.claimants for claim in make(name)]
        if proven:
            claims.append(self._bent("child.steps", self._steps_claim(precommit_sha256, proven)))
            claims += self._opened_claims(precommit_sha256, nonce, proven)
        predicate = {
            "stage": "training" if parent is None else "fine-tuning",
            "model": {
                "name": name,
                "names_blake3": names_digest(files),
                "files": [file.model_dump() for file in files],
            },
            "run": {
                "precommit_sha256": precommit_sha256,
                "transcript_sha256": transcript_sha256,
                "semantics": "float" if parent is None else "exact",
            },
            "inputs": {
                "complete": True,
                "parents": []
                if parent is None
                else [{"certificate_sha256": parent.certificate_sha256, "model_sha256": parent.model_sha256}],
                "datasets": [{"name": "records", "commitment_sha256": commitment.sha256()}],
            },
            "operations": operations,
            "claims": claims,
            "audits": model.audits,
            "coverage": {
                "unit": "segment",
                "population": str(-(-self.steps[name] // self.every)),
                "replayed": "2",
                "proved": str(len(proven)),
            },
            "nonClaims": list(NON_CLAIMS),
        }
        predicate = self._bent(f"{name}.predicate", predicate)
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name, "digest": {"sha256": model_digest(files)}}],
            "predicateType": TRAINING_CERTIFICATE,
            "predicate": predicate,
        }
        statement = self._bent(f"{name}.statement", statement)
        model.certificate_sha256 = sha256_hex(canonical_bytes(statement))
        model.model_sha256 = model_digest(files)
        self.lines.append(sign(statement, key(self.signers[name])))

    def _precommit(self, name: str, parent: Model | None) -> dict[str, Any]:
        commitment = self.training[name][0]
        config: dict[str, Any] = {"learning_rate": "0.1"}
        if parent is not None:
            config["circuit_sha256"] = self.circuit.sha256()
            self.put_kit()
        value: dict[str, Any] = {
            "version": "pot/precommit/v1",
            "run_id": derive("test/run", name.encode()).hex(),
            "semantics": "float" if parent is None else "exact",
            "data": [
                {
                    "name": "records",
                    "commitment_sha256": commitment.sha256(),
                    "view": commitment.view,
                    "records": commitment.records.count,
                    "records_root_blake3": commitment.records.root_blake3,
                    "set_root_blake3": commitment.set.root_blake3,
                }
            ],
            "config": config,
            "config_blake3": config_digest(config),
            "program": {"command": [], "files": [], "data_files": data_files("records", commitment)},
            "environment": {},
            "environment_sha256": environment_sha256({}),
            "order": {"method": "feistel/1", "batch": str(self.batch[name]), "drop_last": True},
            "steps": str(self.steps[name]),
            "checkpoint_every": str(self.every),
            "seed_source": self.seed_source,
        }
        if parent is not None:
            value["parent"] = {
                "certificate_sha256": parent.certificate_sha256,
                "model_sha256": parent.model_sha256,
                "operation": "quantise/1",
            }
        return value

    def _events(
        self, name: str, precommit_sha256: str, nonce: str, parent: Model | None
    ) -> tuple[list[dict[str, Any]], list[bytes]]:
        """The events without index and previous digest, and the weights of every checkpoint."""
        seed = run_seed(precommit_sha256, bytes.fromhex(nonce))
        size = sum(int(item["records"]) for item in self.models[name].precommit["data"])
        config = config_digest(self.models[name].precommit["config"])
        events: list[dict[str, Any]] = [
            {"type": "start", "precommit_sha256": precommit_sha256, "nonce": nonce, "nonce_source": self.seed_source}
        ]
        states: list[bytes] = []
        previous, components, state = ZERO, {}, ZERO
        for step in range(self.steps[name] + 1):
            epoch, position, records = batch_records(seed, size, self.batch[name], step) if step else (0, 0, [])
            if step:
                event = {
                    "type": "step",
                    "step": str(step),
                    "epoch": str(epoch),
                    "position": str(position),
                    "records": str(len(records)),
                    "batch_blake3": batch_digest(records),
                    "loss": "0.5",
                }
                if parent is not None:
                    names = {"before": step - 1, "after": step}
                    event["points"] = {which: self.state_point(name, at) for which, at in names.items()}
                    event["points"]["batch"] = self.batch_point(name, step, list(records))
                events.append(event)
            if step % self.every == 0 or step == self.steps[name]:
                if parent is None:
                    states.append(weights(name, step))
                else:
                    states.append(self.state(name, step))
                components = {
                    "model": model_component(states[-1]),
                    "rng": json_digest("rng", {"step": step}),
                    "cursor": json_digest("cursor", cursor_value(step, epoch, position)),
                }
                state = state_digest(components, step, config, previous)
                events.append(
                    {
                        "type": "checkpoint",
                        "step": str(step),
                        "components": components,
                        "state_blake3": state,
                        "previous_state_blake3": previous,
                        "files": [
                            {"path": max(paths), "bytes": "0", "sha256": sha256_hex(b"")}
                            for paths in checkpoint_files(step, components)
                        ],
                    }
                )
                previous = state
        events.append(
            {
                "type": "end",
                "step": str(self.steps[name]),
                "state_blake3": state,
                "model_blake3": components["model"],
            }
        )
        return events, states

    def _drawn(self, run: tuple[str, str], population: int, unit: str, name: str) -> Challenge:
        """A verifier's challenge; steps lie in as few segments as fifty draws give, so that others are left to draw."""
        draws = [
            new_challenge(
                *run,
                population,
                unit=unit,  # type: ignore[arg-type]
                forged="0.5",
                detect="0.8",
                nonce=derive("test/challenge", name.encode(), unit.encode(), bytes([number])).hex(),
            )
            for number in range(50 if unit == "step" else 1)
        ]
        return min(draws, key=lambda draw: len({(int(step) - 1) // self.every for step in draw.chosen}))

    def _audits(self, name: str, precommit_sha256: str, transcript_sha256: str, nonce: str) -> list[str]:
        """Signed audits: of segments, and for the child of steps; returns the digests of their payloads."""
        results = []
        for unit in ("segment",) if name == "parent" else ("segment", "step"):
            population = -(-self.steps[name] // (self.every if unit == "segment" else 1))
            challenge = self._drawn((precommit_sha256, transcript_sha256), population, unit, name)
            result = {
                "version": "pot/audit-result/v1",
                "precommit_sha256": precommit_sha256,
                "transcript_sha256": transcript_sha256,
                "challenge": challenge.model_dump(mode="json", exclude_none=True),
                "replays": [{"unit_number": number, "outcome": "MATCH"} for number in challenge.chosen],
                "datasets": [self.training[name][0].sha256()],
                "init": "MATCH",
                "points": "NOT_CHECKED" if name == "parent" else "MATCH",
                "environment_sha256": environment_sha256({}),
                "isolation": "full",
            }
            if self.seed_source == "verifier":
                result["seed_nonce"] = {
                    "version": "pot/seed-nonce/v1",
                    "precommit_sha256": precommit_sha256,
                    "nonce": nonce,
                }
            results.append(result)
        results = self._bent(f"{name}.audits", results)
        return [self.add_audit(result) for result in results]

    def add_audit(self, result: dict[str, Any], signer: str = "auditor") -> str:
        """Sign an audit and put it among the lines; returns its payload's digest."""
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "transcript.jsonl", "digest": {"sha256": result["transcript_sha256"]}}],
            "predicateType": AUDIT,
            "predicate": result,
        }
        self.lines.append(sign(statement, key(signer)))
        return sha256_hex(canonical_bytes(statement))

    def add_data_audit(self, result: dict[str, Any], signer: str = "auditor", subject: str | None = None) -> str:
        """Sign a data audit and put it among the lines; returns its payload's digest."""
        digest = {"sha256": subject or result["commitment_sha256"]}
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "dataset-commitment", "digest": digest}],
            "predicateType": DATA_AUDIT,
            "predicate": result,
        }
        self.lines.append(sign(statement, key(signer)))
        return sha256_hex(canonical_bytes(statement))

    def _exclusion(self, name: str) -> dict[str, Any]:
        training, digests = self.training[name]
        x1, asked = self.x1
        return {
            "type": "dataset-exclusion",
            "name": "x1",
            "exclusion_sha256": self.put(x1.to_bytes()),
            "training_sha256": training.sha256(),
            "digests_sha256": self.put(asked),
            "proof_sha256": self.put(exclusion_file(training, digests, x1, asked)),
        }

    def step_proof(self, precommit_sha256: str, event: dict[str, Any], tail: bytes = GOOD_TAIL) -> bytes:
        """An invented step proof for a step event; `StandIn` accepts it iff its tail is the honest one."""
        points = event["points"]
        front = {
            **points,
            "witness": point("witness"),
            "constants": point("constants"),
            "challenge": point("challenge"),
        }
        body = "".join(front[name.partition(".")[0]] for name in self.inputs)
        return canonical_bytes(
            {
                "version": "pot/step-proof/v2",
                "precommit_sha256": precommit_sha256,
                "step": event["step"],
                "circuit_sha256": self.circuit.sha256(),
                "points": points,
                "witness": [point("witness")],
                "proofs": [body + tail.hex()],
            }
        )

    def _step_proofs(self, precommit_sha256: str, events: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Step proofs of the steps that the verifier drew, or of all."""
        run = (precommit_sha256, sha256_hex(self.models["child"].transcript))
        by_step = {event["step"]: event for event in events if event["type"] == "step"}
        numbers = list(by_step) if self.every_step else self._drawn(run, self.steps["child"], "step", "child").chosen
        return [
            {"step": number, "proof_sha256": self.put(self.step_proof(precommit_sha256, by_step[number]))}
            for number in numbers
            if number in by_step
        ]

    def _steps_claim(self, precommit_sha256: str, proven: list[dict[str, str]]) -> dict[str, Any]:
        return {"type": "steps-proven", "circuit_sha256": self.circuit.sha256(), "steps": proven}

    def _opened_claims(self, precommit_sha256: str, nonce: str, proven: list[dict[str, str]]) -> list[dict[str, Any]]:
        """Claims that rest on opened batches: none, for invented records cannot be opened."""
        return []


def listed(files: dict[str, bytes]) -> list[ModelFile]:
    """The file list of a model."""
    return [ModelFile(path=path, bytes=str(len(data)), sha256=sha256_hex(data)) for path, data in sorted(files.items())]


class StandIn:
    """The calls of ezkl that a verdict on step proofs needs: a proof is good iff its last bytes are."""

    def version(self) -> str:
        """The circuit's."""
        return EZKL_VERSION

    def verify(self, proofs: Any, settings: bytes, verifying_key: bytes, srs: bytes) -> list[bool]:
        """Whether each proof ends well."""
        return [proof.endswith(GOOD_TAIL) for proof, _ in proofs]


def judge(proofs: Any, kit: Any, circuit_sha256: str, expected: Any) -> None:
    """The real check of step proofs, with `StandIn` in ezkl's place."""
    verify_steps(proofs, kit=kit, circuit_sha256=circuit_sha256, expected=expected, engine=StandIn())  # type: ignore[arg-type]


def failed(report: Report) -> set[str]:
    """Codes of what was found to be false."""
    return {finding.code for finding in report.findings if finding.status == "failed"}


def unchecked(report: Report) -> set[str]:
    """Codes of what could not be checked and makes the verdict INCOMPLETE."""
    return {f.code for f in report.findings if f.status == "not_checked" and CODES[f.code].blocks}


def written(simulation: Simulation, folder: Path) -> Path:
    """The release bundle on disk."""
    release = simulation.release()
    for name, data in {"model.safetensors": release.weights, "config.json": b"{}"}.items():
        write_file(folder / name, data or b"")
    write_file(folder / "claims.jsonl", join_lines(list(release.lines)))
    for sha256, data in release.objects.items():
        write_file(folder / ".pot/objects" / sha256, data)
    return folder
