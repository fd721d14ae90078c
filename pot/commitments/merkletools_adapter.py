"""The interface of the `merkletools` package (1.0.3) over the RFC 9162 tree.

Spec: `specs/decisions/0001-merkletools.md`. For code that was written against that package: same class, same methods,
same proof shape (a list of {"left": hex} or {"right": hex}), SHA-256 only. Roots differ from the package's own,
because leaves and nodes are hashed with RFC 9162 prefixes: an inner node cannot pass as a leaf here.

Shows: a value is a leaf below a root. Does not show: at which index, since this proof shape does not carry one; use
`pot.commitments.merkle_verify` for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pot.commitments.hashing import DIGEST_BYTES, SHA256
from pot.commitments.merkle import MerkleTree
from pot.errors import Malformed, UsageError

__all__ = ["MerkleTools"]

_MAX_PROOF_STEPS = 64


class MerkleTools:
    """Add leaves, make the tree, take proofs, validate them."""

    def __init__(self, hash_type: str = "sha256") -> None:
        """Raises `UsageError` for any hash but "sha256"."""
        if hash_type.lower() != "sha256":
            raise UsageError(f"merkletools adapter: hash type {hash_type!r} is not supported; use 'sha256'")
        self.reset_tree()

    def reset_tree(self) -> None:
        """Forget all leaves."""
        self.leaves: list[bytes] = []
        self.is_ready = False
        self._tree: MerkleTree | None = None

    def add_leaf(self, values: str | list[str] | tuple[str, ...], do_hash: bool = False) -> None:
        """Add one leaf or several: hex strings, or any text to be hashed first with `do_hash`. Raises `Malformed`."""
        self.is_ready = False
        for value in [values] if isinstance(values, str) else values:
            self.leaves.append(hashlib.sha256(value.encode()).digest() if do_hash else _unhex(value))

    def get_leaf(self, index: int) -> str:
        """Leaf `index` as hex. Raises `UsageError`."""
        if not 0 <= index < len(self.leaves):
            raise UsageError(f"merkletools adapter: no leaf {index}; there are {len(self.leaves)}")
        return self.leaves[index].hex()

    def get_leaf_count(self) -> int:
        """Number of leaves."""
        return len(self.leaves)

    def get_tree_ready_state(self) -> bool:
        """Whether the tree is made and no leaf was added since."""
        return self.is_ready

    def make_tree(self) -> None:
        """Hash the tree over the leaves added so far."""
        self._tree = MerkleTree(self.leaves, SHA256) if self.leaves else None
        self.is_ready = True

    def get_merkle_root(self) -> str | None:
        """The root as hex; None before `make_tree` or without leaves."""
        return self._tree.root.hex() if self.is_ready and self._tree else None

    def get_proof(self, index: int) -> list[dict[str, str]] | None:
        """Inclusion proof of leaf `index`, leaf to root; None before `make_tree` or outside the tree."""
        if not self.is_ready or self._tree is None or not 0 <= index < self._tree.size:
            return None
        proof, position, size = [], index, self._tree.size
        for sibling in self._tree.inclusion_path(index):
            while position == size - 1 and not position & 1:  # moved up without a sibling
                position, size = position >> 1, (size + 1) >> 1
            proof.append({"left" if position & 1 else "right": sibling.hex()})
            position, size = position >> 1, (size + 1) >> 1
        return proof

    def validate_proof(self, proof: Sequence[dict[str, str]], target_hash: str, merkle_root: str) -> bool:
        """Whether `proof` leads from the leaf `target_hash` (hex) to `merkle_root` (hex). Raises `Malformed`."""
        node, root = SHA256.leaf(_unhex(target_hash)), _unhex(merkle_root)
        if len(proof) > _MAX_PROOF_STEPS:
            return False
        for step in proof:
            if len(step) != 1 or next(iter(step)) not in ("left", "right"):
                raise Malformed("merkletools adapter: a proof step must hold exactly one of 'left' and 'right'")
            ((side, value),) = step.items()
            sibling = _unhex(value)
            if len(sibling) != DIGEST_BYTES:
                return False
            node = SHA256.node(sibling, node) if side == "left" else SHA256.node(node, sibling)
        return node == root


def _unhex(value: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except (ValueError, TypeError):
        raise Malformed(f"merkletools adapter: {str(value)[:32]!r} is not hexadecimal") from None
