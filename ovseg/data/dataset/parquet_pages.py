"""What the pages of a parquet file claim, looked at before Arrow makes room for it.

The figures of a file's end say how large its columns are; every page says it again, of itself, and
that is what a reader follows. The two need not agree. Headers of pages are Thrift's compact form
(parquet-format, `PageHeader`); of one, three numbers are wanted and all else is passed over.
"""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow.parquet as pq

_FIRST_LOOK, _LARGEST_HEADER = 1 << 10, 1 << 20  # bytes; statistics of long texts stand in it
_ENDLESS = 1 << 62  # bytes: every column lies within such a file
_DEEPEST = 8  # structures in each other
_MOST_PAGES = 100_000  # of a column of a row group, which has a few hundred
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY = 1, 2, 3, 6, 7, 8
_LIST, _SET, _MAP, _STRUCT = 9, 10, 11, 12
_UNPACKED, _PACKED = 2, 3  # fields of a header: bytes of the page


@dataclass(frozen=True)
class Page:
    """A page as its header tells it: bytes of the header, of the page, and unpacked."""

    header: int
    packed: int
    unpacked: int


class _NothingReadError(Exception):
    """What `_NoFile` has to say."""


class _NoFile(io.RawIOBase):
    """A file without content that can be read."""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        del whence
        return offset

    def tell(self) -> int:
        return _ENDLESS

    def read(self, size: int = -1) -> bytes:
        del size
        raise _NothingReadError


class _CutError(ValueError):
    """A header goes on beyond the bytes at hand."""


def unpacked_bytes(metadata: Any, stream: BinaryIO, groups: Iterable[int]) -> int:
    """Bytes that the pages of some row groups unpack to, as they say themselves.

    Raises:
        ValueError: a page reaches beyond its column or the file, or its header is none.
        OSError: the file's end contradicts itself.
    """
    groups = list(groups)
    require_sound_columns(metadata, groups)
    total = 0
    for number in groups:
        group = metadata.row_group(number)
        for column in range(group.num_columns):
            total += sum(page.unpacked for page in pages(group.column(column), stream))
    return total


def require_sound_columns(metadata: Any, groups: Iterable[int]) -> None:
    """OSError where what the file's end says of a column contradicts itself.

    `RowGroupMetaData.column` ends the process over such a column. Reading it raises, and before
    any byte of the column is read: so it is read from a file that has none.
    """
    table = pq.ParquetFile(_NoFile(), metadata=metadata, pre_buffer=False)
    for group in groups:
        for column in range(metadata.num_columns):
            with suppress(_NothingReadError):
                table.reader.read_row_group(group, column_indices=[column], use_threads=False)


def pages(column: Any, stream: BinaryIO) -> Iterator[Page]:
    """The pages of a column of a row group, as `RowGroupMetaData.column` gives it."""
    place = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        # A column without values has no page but the dictionary's, and Arrow reads none.
        empty = place == 0 and column.num_values == 0
        place = (
            column.dictionary_page_offset if empty else min(place, column.dictionary_page_offset)
        )
    end = place + column.total_compressed_size
    for _ in range(_MOST_PAGES):
        if place >= end:
            return
        page = _page_at(stream, place, end)
        yield page
        place += page.header + page.packed
    raise ValueError(f"a column of more than {_MOST_PAGES:,} pages")


def _page_at(stream: BinaryIO, place: int, end: int) -> Page:
    length = _FIRST_LOOK
    while True:
        stream.seek(place)
        content = stream.read(min(length, end - place))
        try:
            page = _parse(content)
            break
        except _CutError:
            if len(content) < length or length >= _LARGEST_HEADER:
                raise ValueError("the header of a page is cut off") from None
            length *= 8
    if page.packed < 0 or page.unpacked < 0 or place + page.header + page.packed > end:
        raise ValueError(f"a page of {page.packed:,} bytes reaches beyond its column")
    return page


def _parse(content: bytes) -> Page:
    reader = _Reader(content)
    numbers = {_UNPACKED: -1, _PACKED: -1}
    for field, kind in reader.fields():
        if field in numbers and kind not in (_TRUE, _FALSE, _BINARY, _STRUCT):
            numbers[field] = reader.integer()
        else:
            reader.skip(kind)
    return Page(reader.at, numbers[_PACKED], numbers[_UNPACKED])


class _Reader:
    """Goes through a structure in Thrift's compact form."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and kind of each field; whoever takes one must read or skip it."""
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self.integer()
            yield number, kind

    def integer(self) -> int:
        """A whole number, zigzag and seven bits a byte."""
        value = self._plain()
        return (value >> 1) ^ -(value & 1)

    def skip(self, kind: int, depth: int = 0) -> None:
        """Pass over a value."""
        if depth > _DEEPEST:
            raise ValueError("the header of a page is nested too deeply")
        if kind in (_TRUE, _FALSE):
            return
        if kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif kind in (_LIST, _SET):
            self._skip_list(depth)
        elif kind == _MAP:
            raise ValueError("the header of a page holds a map")
        elif kind in (_BYTE, _DOUBLE, _BINARY):
            size = {_BYTE: 1, _DOUBLE: 8}.get(kind)
            self._pass(self._plain() if size is None else size)
        elif _BYTE < kind <= _I64:
            self._plain()
        else:
            raise ValueError(f"the header of a page holds a value of the kind {kind}")

    def _skip_list(self, depth: int) -> None:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._plain()
        for _ in range(count):
            if head & 15 in (_TRUE, _FALSE):
                self._byte()  # in a list, it has a byte of its own
            else:
                self.skip(head & 15, depth + 1)

    def _plain(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("the header of a page holds a number of too many digits")

    def _byte(self) -> int:
        self._pass(1)
        return self.content[self.at - 1]

    def _pass(self, count: int) -> None:
        if self.at + count > len(self.content):
            raise _CutError
        self.at += count
