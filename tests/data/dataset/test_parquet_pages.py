"""Parquet whose pages do not say what its end says."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.data.dataset.parquet import read_columns, require_proportion
from ovseg.data.dataset.parquet_pages import pages, unpacked_bytes
from tests.conftest import ROOT
from tests.data.dataset.lying_parquet import with_page_of

TEXTS = [f"a caption of a cat, number {number % 50}" for number in range(5_000)]
TABLE = pa.table({"text": TEXTS, "number": list(range(5_000)), "lists": [[1, 2]] * 5_000})
WAYS = [
    {},
    {"compression": "none", "use_dictionary": False},
    {"compression": "zstd", "data_page_version": "2.0", "data_page_size": 2_000},
    {"row_group_size": 1_000, "write_page_index": True},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
]


@pytest.mark.parametrize("way", WAYS)
def test_honest_pages_add_up_to_what_the_end_says(way: dict, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(TABLE, path, **way)
    with path.open("rb") as stream:
        table = pq.ParquetFile(stream)
        groups = range(table.metadata.num_row_groups)
        told = sum(table.metadata.row_group(number).total_byte_size for number in groups)
        found = unpacked_bytes(table.metadata, stream, groups)
        assert 0.5 * told < found <= told
        require_proportion(table, stream)


@pytest.mark.parametrize("claim", [1 << 30, (1 << 31) - 1, -5])
def test_a_page_that_claims_more_is_refused_before_it_is_followed(claim: int) -> None:
    stream = io.BytesIO()
    pq.write_table(TABLE, stream, compression="zstd", use_dictionary=False)
    damaged = io.BytesIO(with_page_of(stream.getvalue(), claim))
    with pytest.raises(ValueError, match=r"unpacks from|reaches beyond|cut off"):
        read_columns(damaged, TABLE.schema)


def test_headers_that_are_none() -> None:
    stream = io.BytesIO()
    pq.write_table(TABLE, stream)
    content = bytearray(stream.getvalue())
    column = pq.ParquetFile(io.BytesIO(bytes(content))).metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    for header in (b"\x00" * 40, b"\xff" * 40, b"\x1b" * 40, b"\x1c" * 4_000):
        hostile = bytes(content[:start]) + header + bytes(content[start + len(header) :])
        with pytest.raises(ValueError):
            list(pages(column, io.BytesIO(hostile)))


def test_columns_that_would_end_the_process_raise() -> None:
    """Seen with pyarrow 26: `RowGroupMetaData.column` aborts over a wrong count of levels."""
    path = ROOT / "tests/campaign/corpus/captions.parquet/histogram.parquet"
    with path.open("rb") as stream, pytest.raises(OSError, match="histogram"):
        unpacked_bytes(pq.ParquetFile(stream).metadata, stream, [0])
