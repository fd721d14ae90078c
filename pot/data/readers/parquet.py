"""Parquet files.

Spec: `specs/containers.md`, "parquet"; the format is Apache Parquet's. Pages with checksums are checked against them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pot.data.readers.columnar import SLICE_BYTES, SLICE_ROWS, ColumnarReader
from pot.data.readers.source import Source, import_pyarrow, parsing
from pot.errors import Malformed

__all__ = ["ParquetReader"]


class ParquetReader(ColumnarReader):
    """Reads row group after row group, in batches whose rows fit about `SLICE_BYTES`."""

    def _schema(self, source: Source) -> Any:
        return self._open(source).schema_arrow

    def _open(self, source: Source) -> Any:
        pa = import_pyarrow(f"{self.path}: reading Parquet")
        import pyarrow.parquet as pq

        buffer = pa.BufferReader(pa.py_buffer(source.mapped()))
        return pq.ParquetFile(buffer, page_checksum_verification=True, pre_buffer=False)

    def _batches(self, source: Source, columns: list[str] | None) -> Iterator[Any]:
        with parsing(str(self.path), "Parquet data"):
            file = self._open(source)
            groups = file.metadata.num_row_groups
            if sum(file.metadata.row_group(number).num_rows for number in range(groups)) != file.metadata.num_rows:
                raise Malformed(
                    f"{self.path}: its row groups do not hold the {file.metadata.num_rows} rows of its footer"
                )
        for number in range(groups):
            where = f"{self.path} row group {number}"
            with parsing(where, "Parquet data"):
                group = file.metadata.row_group(number)
                row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
                rows = max(1, min(SLICE_ROWS, SLICE_BYTES // row_bytes))
                batches = file.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False)
            found = 0
            while True:
                source.check_length()
                with parsing(where, "Parquet data"):
                    batch = next(batches, None)
                    if batch is None:
                        break
                    batch = batch if columns is None else batch.select(columns)
                found += batch.num_rows
                yield batch
                # about as far as the file was read, so that pages that were used are hashed and given back
                source.hash_to(int(source.size * (number + min(1, found / max(1, group.num_rows))) / groups))
            if found != group.num_rows:
                raise Malformed(f"{where}: {found} rows, but its header says {group.num_rows}")
