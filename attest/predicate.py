"""What our statements say: the predicates of a training certificate, an audit and a data audit.

Spec: `specs/certificate.md` and `specs/predicates/`. Absence of a field means no claim. Everything is referred to by
digest: statements by the SHA-256 of their DSSE payload, evidence by the SHA-256 of the bytes of the object.

Shows: nothing by itself; a predicate is what somebody says (level `declared`).
Does not show: that what is said is so; that is for `attest.verdict`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from pot.canonical import Count, Document, Hex32
from pot.commitments.model import ModelFile

__all__ = [
    "AUDIT",
    "AUTHORITY",
    "DATA_AUDIT",
    "MAX_ENTRIES",
    "NON_CLAIMS",
    "STATEMENT_PREDICATES",
    "TRAINING_CERTIFICATE",
    "Claim",
    "Coverage",
    "DataComposition",
    "Dataset",
    "DatasetExclusion",
    "DatasetInclusion",
    "Inputs",
    "Model",
    "Name",
    "OpenedStep",
    "Operation",
    "Parent",
    "ProvenStep",
    "Run",
    "StepExclusion",
    "StepsProven",
    "TrainingCertificate",
    "TrainingProvenance",
]

AUTHORITY: Final = "https://pot-attest.dev/attestation/"
"""The authority of our type URIs: a placeholder, and the only place where it is written."""

TRAINING_CERTIFICATE: Final = AUTHORITY + "training-certificate/v0.1"
AUDIT: Final = AUTHORITY + "audit/v0.1"
DATA_AUDIT: Final = AUTHORITY + "data-audit/v0.1"
STATEMENT_PREDICATES: Final = (TRAINING_CERTIFICATE, AUDIT, DATA_AUDIT)

MAX_ENTRIES: Final = 4096  # of any list; the statement's 64 KiB end far below it

Name = Annotated[str, StringConstraints(pattern=r"\A[!-~]([ -~]{0,254}[!-~])?\z")]
"""A name: 1 to 256 printable ASCII characters. Names are compared as bytes, so they hold no look-alikes."""

NON_CLAIMS: Final = (
    "secret-parallel-runs",
    "program-not-reviewed",
    "paraphrase",
    "undeclared-teachers",
    "label-truth",
    "parents-without-certificates",
    "obtainable-not-historical",
)
"""Codes of what no transcript can show; `certify` prints all of them in every certificate."""


class Model(Document):
    """The released model: every file of the folder, and the root that binds their names."""

    name: Name
    names_blake3: Hex32
    files: Annotated[list[ModelFile], Field(min_length=1, max_length=MAX_ENTRIES)]


class Run(Document):
    """The run that made the model."""

    precommit_sha256: Hex32
    transcript_sha256: Hex32
    semantics: Literal["float", "exact"]


class Parent(Document):
    """A model that went into this one: the payload digest of its certificate, and its subject."""

    certificate_sha256: Hex32
    model_sha256: Hex32


class Dataset(Document):
    """A committed dataset that went into this model."""

    name: Name
    commitment_sha256: Hex32


class Inputs(Document):
    """Everything that went into the model. `complete` says that nothing else did."""

    complete: Literal[True]
    parents: Annotated[list[Parent], Field(max_length=64)]
    datasets: Annotated[list[Dataset], Field(min_length=1, max_length=256)]


class Operation(Document):
    """A conversion of weights that verification recomputes bit by bit."""

    type: Literal["quantise/1", "dequantise/1"]
    input_sha256: Hex32
    output_sha256: Hex32


class TrainingProvenance(Document):
    """The run of this certificate, on its data, code and seed, made these weights."""

    type: Literal["training-provenance"]


class DatasetExclusion(Document):
    """No record of the exclusion set is among the records of one training dataset, seen through the set's view.

    `training_sha256`: a pre-committed dataset's commitment, or another commitment to the same shards. `digests_sha256`:
    the exclusion set's listing.
    """

    type: Literal["dataset-exclusion"]
    name: Name
    exclusion_sha256: Hex32
    training_sha256: Hex32
    digests_sha256: Hex32
    proof_sha256: Hex32


class DatasetInclusion(Document):
    """Every record of the inclusion set is among the records of one training dataset, and was in a batch."""

    type: Literal["dataset-inclusion"]
    name: Name
    inclusion_sha256: Hex32
    training_sha256: Hex32
    digests_sha256: Hex32
    proof_sha256: Hex32


class DataComposition(Document):
    """The records, bytes and tokens of one training dataset, for each of its labels."""

    type: Literal["data-composition"]
    training_sha256: Hex32
    composition_sha256: Hex32


class ProvenStep(Document):
    """One step of the run and the object that holds its step proof."""

    step: Count
    proof_sha256: Hex32


class StepsProven(Document):
    """The listed steps map the committed state before to the committed state after, as the circuit says.

    `first_opening_sha256`, `last_opening_sha256`: objects that open the points of the run's first and last state.
    """

    type: Literal["steps-proven"]
    circuit_sha256: Hex32
    steps: Annotated[list[ProvenStep], Field(min_length=1, max_length=MAX_ENTRIES)]
    first_opening_sha256: Hex32 | None = None
    last_opening_sha256: Hex32 | None = None


class OpenedStep(Document):
    """One proven step of the run and the object that opens the point of its batch, records included."""

    step: Count
    opening_sha256: Hex32


class StepExclusion(Document):
    """The listed steps, which are proven under the same circuit, read no record of the exclusion set.

    `digests_sha256`: the exclusion set's listing.
    """

    type: Literal["step-exclusion"]
    name: Name
    exclusion_sha256: Hex32
    digests_sha256: Hex32
    circuit_sha256: Hex32
    steps: Annotated[list[OpenedStep], Field(min_length=1, max_length=MAX_ENTRIES)]


Claim = Annotated[
    TrainingProvenance | DatasetExclusion | DatasetInclusion | DataComposition | StepsProven | StepExclusion,
    Field(discriminator="type"),
]


class Coverage(Document):
    """What the signer says was checked. Verification recomputes it and refuses another number."""

    unit: Literal["segment", "step"]
    population: Count
    replayed: Count
    proved: Count


class TrainingCertificate(Document):
    """Predicate of `training-certificate/v0.1`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    stage: Literal["training", "fine-tuning"]
    model: Model
    run: Run
    inputs: Inputs
    operations: Annotated[list[Operation], Field(max_length=8)]
    claims: Annotated[list[Claim], Field(min_length=1, max_length=64)]
    audits: Annotated[list[Hex32], Field(max_length=64)]
    coverage: Coverage
    non_claims: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"\A[a-z0-9-]{1,64}\z")]],
        Field(alias="nonClaims", max_length=64),
    ]
