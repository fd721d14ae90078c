"""Folders of images: each losslessly encoded file is one record with the field `image`.

Spec: `specs/containers.md`, "images". Views decode the image, so that its pixels count and not how they were packed.
"""

from __future__ import annotations

from pot.commitments.dataset import CONTAINER_SUFFIXES
from pot.data.readers.file import FileReader
from pot.data.readers.record import Record

__all__ = ["IMAGE_SUFFIXES", "ImageReader"]

# lossless, and decoded to the same pixels by every decoder
IMAGE_SUFFIXES = CONTAINER_SUFFIXES["images"]


class ImageReader(FileReader):
    """Reads an image file: its bytes are the field `image` for views of images, a plain file for the others."""

    suffixes = IMAGE_SUFFIXES

    def _record(self, where: str, piece: bytes) -> Record:
        plain = super()._record(where, piece)
        return plain if self.needs not in ("image", "object") else Record(where, piece, {"image": piece})
