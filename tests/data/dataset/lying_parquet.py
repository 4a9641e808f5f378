"""Parquet files made to lie."""

import io

import pyarrow.parquet as pq


def with_page_of(content: bytes, unpacked: int) -> bytes:
    """A file whose first page claims to unpack to so many bytes."""
    column = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    header = bytearray(content[start : start + 200])
    assert header[0] == 0x15 and header[2] == 0x15  # the kind of page, then the size unpacked
    first = 3
    end = next(at for at in range(first, 20) if header[at] < 128) + 1
    claim = _varint((unpacked << 1) ^ (unpacked >> 63), room=end - first)
    grown = len(claim) - (end - first)  # taken from the page itself, so that offsets stay
    return (
        content[: start + first] + claim + content[start + end : start + 100]
        + content[start + 100 + grown :]
    )  # fmt: skip


def _varint(value: int, room: int) -> bytes:
    """Seven bits a byte, at least as many bytes as there is room for."""
    value &= (1 << 64) - 1
    found = bytearray([value & 127])
    while value := value >> 7:
        found[-1] |= 128
        found.append(value & 127)
    while len(found) < room:
        found[-1] |= 128
        found.append(0)
    return bytes(found)
