"""The closed list of finding codes: what each check is, and what to do where it does not pass.

Spec: `specs/verification.md`, "Finding codes"; `pot explain CODE` prints an entry. A code belongs to one of the fifteen
steps. `blocks` says what a check that could not be made does to the verdict: a blocking one makes it INCOMPLETE, any
other only lowers the level of the claims that rest on it: to `committed`, or to `declared` where it is a `word`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pot.errors import UsageError

__all__ = ["CODES", "NOT_SHOWN", "STEPS", "Code", "explain"]

STEPS: Final[dict[int, str]] = {
    1: "Read with caps",
    2: "Signature, algorithm from the trust root",
    3: "Identity and role against the policy",
    4: "Time source",
    5: "Log inclusion, consistency, witnesses",
    6: "Statement and predicate, strict",
    7: "Subject is the files at hand",
    8: "Pre-commitment, seed, order",
    9: "Transcript chain, first to released weights",
    10: "Claims: set proofs",
    11: "Step proofs",
    12: "Audits and coverage",
    13: "Lineage",
    14: "Status",
    15: "Policy to verdict",
}
"""The verification procedure; the numbers stand in the spec, in the code and in the report."""


@dataclass(frozen=True, slots=True)
class Code:
    """One check. `blocks`: whether it makes the verdict INCOMPLETE where it could not be made. `word`: whether, unmade,
    it leaves nothing but somebody's word.
    """

    name: str
    step: int
    blocks: bool
    meaning: str
    advice: str
    word: bool = False


_ALL: Final = (
    Code("release-bundle", 1, True, "The release bundle was read within the caps.", "Look at the caps in the spec."),
    Code(
        "claims-line", 1, False,
        "A line of claims.jsonl is not a Sigstore bundle v0.3 with a DSSE envelope; it was left out.",
        "A line that nothing refers to does no harm. If it is meant as evidence, write it again.",
    ),
    Code(
        "object", 1, False,
        "A file among the objects is not one, or its bytes do not hash to its name; it was left out.",
        "Copy the object again from its source; its name is the SHA-256 of its bytes.",
    ),
    Code(
        "unreferenced", 1, False,
        "A statement or object to which nothing refers that the verdict rests on.",
        "It neither helps nor harms; remove it if it is not wanted.",
    ),
    Code(
        "signature", 2, True,
        "The envelope carries a good signature by a key of the policy; the key alone decides the algorithm.",
        "The bytes were changed after signing, or signed with another key: ask the signer, or correct the policy.",
    ),
    Code(
        "identity", 3, True,
        "The signer is one of the policy's identities, in the role that the statement needs.",
        "Give the policy with --policy, and in it the developer's and the auditors' public keys.",
    ),
    Code(
        "time-source", 4, False,
        "A trusted clock says when the statement was signed.",
        "This version has no time source; nothing in this verdict rests on a clock.",
    ),
    Code(
        "log-inclusion", 5, False,
        "The statement and the pre-commitment stand in a transparency log.",
        "This version has no log; order in time is shown by verifiers' nonces only.",
    ),
    Code(
        "statement", 6, True,
        "The payload is a strict in-toto Statement v1 with one subject, in canonical form.",
        "Make the certificate again with pot certify; statements are never edited by hand.",
    ),
    Code(
        "predicate", 6, True,
        "The predicate is of a known type and has exactly the fields of its specification.",
        "Make the certificate again with pot certify, or use a verifier that knows this predicate type.",
    ),
    Code(
        "subject", 7, True,
        "The certificate's subject is the model-signing root digest of the files at hand.",
        "The model is not the certified one: get the released files again, byte for byte.",
    ),
    Code(
        "files", 7, True,
        "The folder holds exactly the files that the certificate lists, under their names.",
        "Remove foreign files from the model's folder, and restore missing or changed ones.",
    ),
    Code(
        "precommit", 8, True,
        "The pre-commitment is there, is well formed, and is the one that the transcript began with.",
        "Ask for the object that the finding names; it belongs into .pot/objects.",
    ),
    Code(
        "inputs", 8, True,
        "The certificate's datasets, parents, stage and semantics are those of the pre-commitment, none left out.",
        "A certificate must list all inputs of its run; make it again with pot certify.",
    ),
    Code(
        "dataset-commitment", 8, True,
        "Each dataset's commitment is there, with the view, count and roots that were pre-committed.",
        "Ask for the commitment that the finding names; it belongs into .pot/objects.",
    ),
    Code(
        "seed", 8, False,
        "The seed depends on a nonce that an accepted auditor gave after seeing the pre-commitment.",
        "Let an accepted auditor give the nonce (seed source verifier), and refer to that audit in the certificate.",
    ),
    Code(
        "seed-beacon", 8, True,
        "The nonce is the randomness of the pre-committed beacon round: SHA-256 of a signature that holds.",
        "Put the round's signature (48 bytes) among the objects, name a beacon other than quicknet in the policy"
        " (challenge.beacon), and install the extra [beacon].",
    ),
    Code(
        "order", 8, True,
        "Each step used the records that seed and order method give for it.",
        "The order is not the pre-committed one: the transcript is not that of an honest run.",
    ),
    Code(
        "stream-order", 8, False,
        "A seed fixes the order of records; for an iterable dataset none does.",
        "Nothing to repair: claims about such a run's data stay committed. A map-style dataset has a fixed order.",
    ),
    Code(
        "transcript", 9, True,
        "The transcript is there and every line is a well-formed event.",
        "Ask for the object that the finding names; it belongs into .pot/objects.",
    ),
    Code(
        "chain", 9, True,
        "Each event follows from the one before: index, previous digest, steps, states, from start to end.",
        "The transcript was edited, cut or put together: it is not that of an honest run.",
    ),
    Code(
        "fork", 9, True,
        "The run went straight from its start to its end; nothing was rewound to try again.",
        "A run that was rewound shows one of several outcomes; train without going back to earlier checkpoints.",
    ),
    Code(
        "gap", 9, False,
        "Every checkpoint that should have files has them.",
        "A disk failed during the run: the segment over the gap is longer, and replay shows the same for it.",
    ),
    Code(
        "initial-weights", 9, False,
        "The first weights are those of the parent's release, or an auditor made them again from the seed.",
        "Let an accepted auditor regenerate the first weights, or declare the parent.",
    ),
    Code(
        "operation", 9, True,
        "Each declared conversion of weights gives, recomputed here, the declared result bit by bit.",
        "The declared operation is not what happened between the two weight files.",
    ),
    Code(
        "released-weights", 9, True,
        "The released weights are those at the end of the transcript, or made from them by a declared operation.",
        "Weights were changed after the last checkpoint: release what the run ended with.",
    ),
    Code(
        "exclusion-set", 10, True,
        "The exclusion set is not empty and its digests give the roots and counts that name it.",
        "The digests are those of another set, or missing: ask for the object that the finding names.",
    ),
    Code(
        "exclusion-training", 10, True,
        "The proofs are against all datasets that the run pre-committed, in the exclusion set's view.",
        "An exclusion holds for a run only if every dataset of the run is proven against.",
    ),
    Code(
        "same-shards", 10, True,
        "A proof's commitment under another view lists the same files, in the same order, as a pre-committed one.",
        "Commit to the run's own files, all of them and in the same order, under the exclusion set's view.",
    ),
    Code(
        "non-membership", 10, True,
        "The non-membership proof shows that no record of the exclusion set is in the training data's set commitment.",
        "The proof is false or missing: make it again with pot data exclude, which says if the sets overlap.",
    ),
    Code(
        "inclusion-set", 10, True,
        "The inclusion set is not empty and its digests give the roots and counts that name it.",
        "The digests are those of another set, or missing: ask for the object that the finding names.",
    ),
    Code(
        "membership", 10, True,
        "The inclusion proof shows that every record of the inclusion set stands in a pre-committed dataset's order.",
        "The inclusion proof is false or missing: make it again with pot data include, which counts what is missing.",
    ),
    Code(
        "inclusion-used", 10, True,
        "By seed and order, every record of the inclusion set was in at least one batch of the run.",
        "Records in the dropped end of an epoch, or beyond the last step, are in no batch: train for longer.",
    ),
    Code(
        "composition", 10, True,
        "The composition is of a pre-committed dataset, and its groups add up to the counts and root that it states.",
        "The composition is false or missing: make it again with pot data compose.",
    ),
    Code(
        "circuit", 11, True,
        "The step proof's circuit is one that the policy pins, and its shape is the pre-committed configuration's.",
        "Add the circuit's digest to zk.circuits in the policy after looking at the circuit.",
    ),
    Code(
        "srs", 11, True,
        "The structured reference string of the step proof is one that the policy pins, with its class.",
        "Add the reference string's digest and class to zk.srs in the policy.",
    ),
    Code(
        "step-points", 11, True,
        "The step proof's points are those that the transcript committed for that step of that run.",
        "The step proof belongs to another step or another run.",
    ),
    Code(
        "step-proof", 11, True,
        "The step proof holds: this step maps the state before to the state after as the circuit says.",
        "The step proof is false or missing, or the extra that checks it is not installed; see the finding.",
    ),
    Code(
        "step-chain", 11, True,
        "Neighbouring proven steps are linked: each begins at the very point where the one before it ended.",
        "The step proofs are of states that do not follow each other: they are not of one honest run.",
    ),
    Code(
        "state-opening", 11, True,
        "The first or last state's point is that of the run's first or last weights, computed again here.",
        "The opening is false or missing: make it again with pot certify --secret.",
    ),
    Code(
        "batch-opening", 11, True,
        "A proven step's batch is opened: its point is that of records which stand where seed and order put them.",
        "The opening is false or missing: make it again with pot certify --secret and --records.",
    ),
    Code(
        "step-absence", 11, True,
        "No record of the opened batches is in the exclusion set, seen through its view.",
        "A step used a record of the exclusion set, or its batch does not show it; see the finding.",
    ),
    Code(
        "blinding", 11, False,
        "The secret that blinds this run's points blinds no other run of the lineage.",
        "It harms no claim, but both runs' points now tell of their data: use fresh random bytes for every run.",
    ),
    Code(
        "audit", 12, True,
        "Each audit that the certificate refers to is there, well formed, and about this run.",
        "Ask the auditor for the audit's line and add it to claims.jsonl.",
    ),
    Code(
        "auditor", 12, False,
        "The audit's signer is an accepted auditor.",
        "Add the auditor's public key to roles.auditor in the policy if you trust them.",
    ),
    Code(
        "challenge", 12, True,
        "The challenge recomputes, over the whole run, from the transcript and a verifier's nonce or a beacon's round.",
        "The challenged units are not those that the nonce draws: let the auditor make a new challenge.",
    ),
    Code(
        "replay", 12, False,
        "Every challenged unit was re-executed by an accepted auditor and matched.",
        "A mismatch means that the transcript does not describe what the program does; do not use the model.",
    ),
    Code(
        "replay-coverage", 12, False,
        "The challenges, together, catch the policy's share of forged steps with the policy's probability.",
        "Let an accepted auditor replay a larger challenge; pot challenge new computes its size.",
    ),
    Code(
        "independent-audits", 12, False,
        "Two auditors revealed digests of inner states that each had committed to, and they agree.",
        "Let two auditors replay a common segment with pot audit --inner-out, and put both revealed documents among the"
        " objects.",
    ),
    Code(
        "screening", 12, False,
        "Cheap checks over all segments found none that looks unlike training, or an auditor replayed those that do.",
        "Let an accepted auditor replay the segments that the finding names.",
    ),
    Code(
        "replay-tolerance", 12, False,
        "Where bits could not be compared, states lie within the auditor's own noise, nearer than any forgery tried.",
        "Replay on a machine like the run's: a tolerance never replaces a match.",
    ),
    Code(
        "segment-length", 12, True,
        "No segment is longer than the policy allows.",
        "Long segments make sampling meaningless: train with checkpoints more often.",
    ),
    Code(
        "records-tie", 12, False,
        "An accepted auditor recomputed both roots of the data: set commitment and order hold the same records.",
        "Let an accepted auditor recompute its commitment: pot audit data, from the data or from its digests alone.",
    ),
    Code(
        "view-tie", 12, False,
        "An accepted auditor made the commitment under another view again from the run's files.",
        "Let an accepted auditor with access to the data run pot audit data with --data on that commitment.",
        word=True,
    ),
    Code(
        "composition-tie", 12, False,
        "An accepted auditor made the composition again from the data and its labels.",
        "Let an accepted auditor with access to the data run pot audit data with --data and --composition.",
        word=True,
    ),
    Code(
        "points-tie", 12, False,
        "The points are tied: every step is proven and both ends are opened, or an accepted auditor recomputed them.",
        "Prove every step and open both ends (pot certify --secret), or let an accepted auditor recompute the points.",
    ),
    Code(
        "coverage", 12, True,
        "The coverage that the certificate states is what its evidence gives.",
        "Make the certificate again with pot certify; it counts for itself.",
    ),
    Code(
        "unreferenced-audit", 12, False,
        "An accepted auditor's audit of this run reports a mismatch, but the certificate does not refer to it.",
        "It changes no verdict; ask the developer why the certificate leaves it out.",
    ),
    Code(
        "parent", 13, True,
        "Each parent's certificate is there, is by an accepted developer, and is about the model that was built on.",
        "Ask for the parent's release bundle and add its claims and objects.",
    ),
    Code(
        "lineage-claim", 13, True,
        "Every ancestor shows the same claim.",
        "A claim over a lineage holds only if every ancestor shows it; get certificates for the ancestors.",
    ),
    Code(
        "status", 14, False,
        "No revocation is known, and the status is fresh.",
        "This version has no revocation; keep the policy's keys current.",
    ),
    Code(
        "requirement", 15, True,
        "A claim that the policy requires holds at the level that it requires.",
        "Look at the claim's links: the weakest one sets the level.",
    ),
    Code(
        "policy", 15, True,
        "A policy says whom to believe and what to require.",
        "Give one with --policy; pot policy show exclusion prints one to start from.",
    ),
    Code(
        "candidate", 15, False,
        "Another certificate of an accepted developer is in the release bundle.",
        "The verdict is that of the best certificate about these files; look at the others if they surprise.",
    ),
)  # fmt: skip

CODES: Final[dict[str, Code]] = {code.name: code for code in _ALL}

NOT_SHOWN: Final[dict[str, str]] = {
    "secret-parallel-runs": "That no other run was made in secret, of which only this one is shown.",
    "program-not-reviewed": "That the training program is benign; its digests are committed, nobody reviewed it.",
    "paraphrase": "That the data holds no paraphrase or translation of excluded records; only equal bytes count.",
    "undeclared-teachers": "That no undeclared model wrote or labelled the training data.",
    "label-truth": "That labels, sources and licences in the data are true.",
    "parents-without-certificates": "Anything about ancestors that have no certificate.",
    "obtainable-not-historical": (
        "That the weights were historically obtained this way; exact replay shows that they can be obtained so."
    ),
    "seed-source-self": "That the seed was not searched for: the trainer chose the nonce alone.",
    "seed-beacon-time": "That the pre-commitment is older than the beacon's round, so that nobody knew the nonce.",
    "order-not-fixed": "That the records came in an order fixed beforehand: an iterable dataset chose them as it went.",
    "auditors-may-be-one": "That two auditors are not one person or one machine, and told each other nothing.",
    "unaudited-steps": "That units which no accepted auditor replayed ran as the transcript says.",
    "selected-audits": "That no further audit was made whose unfavourable result was left out.",
    "time-and-log": "When the pre-commitment was written: no log and no trusted clock were consulted.",
    "revocation": "That certificate and keys have not been withdrawn.",
    "other-inputs": "That the program did not train on its other inputs: files that hold no committed records.",
    "points-not-tied": "That the points of step proofs commit to the released weights and the committed records.",
    "batches-not-opened": "That the batches behind the points of proven steps hold the committed records.",
    "rescales-steered": (
        "That the steps of family auto were rounded as ezkl rounds: a prover may move each rescale by one unit in the"
        " last place, in every step."
    ),
    "secret-reused": "That this run's points hide its states and batches: another run is blinded by the same secret.",
    "frozen-base": (
        "That the frozen parameters beside the released ones are any particular model: only their digest is committed."
    ),
    "records-left-out": "Anything about the records that could not be read when the data was committed.",
}
"""What the report lists as not shown: the first seven always, the others where they apply."""


def explain(name: str) -> str:
    """A finding code in plain words. Raises `UsageError` for an unknown one."""
    code = CODES.get(name)
    if code is not None:
        effect = (
            "The verdict is INCOMPLETE while it cannot be checked."
            if code.blocks
            else "Where it cannot be checked the claims that rest on it are only declared."
            if code.word
            else "Where it cannot be checked it only lowers the level of claims that rest on it."
        )
        return (
            f"{code.name} (step {code.step}: {STEPS[code.step]})\n"
            f"Passed: {code.meaning}\nOtherwise: {code.advice}\n{effect}\nSee specs/verification.md, step {code.step}."
        )
    if name in NOT_SHOWN:
        return f'{name} (listed under "not shown")\nNot shown: {NOT_SHOWN[name]}\nSee specs/threat-model.md.'
    raise UsageError(f"no finding has the code {name[:64]!r}; pot explain --list shows all codes")
