"""Lines of a large text file: in blocks, from any stretch of it, whatever their length."""

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from ovseg.data.dataset.plan import Tally
from ovseg.data.streams import open_binary
from ovseg.errors import DataError

BLOCK = 16 << 20  # bytes read at a time: about 90,000 rows of CC12M
LONGEST_LINE = 1 << 20  # bytes; far above the longest usable caption and address together


class Readable(Protocol):
    """What `line_blocks` needs of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""


@dataclass(frozen=True)
class TablePart:
    """A stretch of a table that can be read on its own: bytes of lines, or parquet row groups.

    A line belongs to the part in which it begins. `end` None means to the end of the table.
    """

    start: int = 0
    end: int | None = None


WHOLE = TablePart()


def read_head(address: str, size: int = 1 << 20) -> bytes:
    """The first bytes of a text file, without the mark that some programs begin UTF-8 with.

    Raises:
        DataError: it cannot be opened, or is UTF-16.
    """
    with open_binary(address) as stream:
        head = stream.read(size)
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise DataError(f"{address} is UTF-16: save it as UTF-8")
    return head.removeprefix(BOM_UTF8)


def stretch(stream: BinaryIO, part: TablePart) -> Readable:
    """The lines that begin in a part, as a stream."""
    if part.start:
        stream.seek(part.start - 1)
        # Unless a line ends just before, the first one here is the previous part's.
        while (piece := stream.readline(LONGEST_LINE)) and not piece.endswith(b"\n"):
            pass
    return stream if part.end is None else _Lines(stream, part.end)


class _Lines:
    """Reads whole lines from a stream while they begin before `end`."""

    def __init__(self, stream: BinaryIO, end: int) -> None:
        self._stream = stream
        self._end = end

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, and the rest of the part's last line with the last of them."""
        left = self._end - self._stream.tell()
        if left <= 0:
            return b""
        data = self._stream.read(min(size, left) if size >= 0 else left)
        if len(data) == left and not data.endswith(b"\n"):
            data += self._rest_of_line()
        return data

    def _rest_of_line(self) -> bytes:
        rest = self._stream.readline(2 * LONGEST_LINE)
        while rest and not rest.endswith(b"\n"):  # far too long: the reader drops it anyway
            piece = self._stream.readline(LONGEST_LINE)
            if not piece:
                break
            rest = rest[: 2 * LONGEST_LINE] + piece[-1:]
        return rest


def line_blocks(stream: Readable, tally: Tally, block: int = BLOCK) -> Iterator[bytes]:
    """Whole lines, about `block` bytes at a time; lines over `LONGEST_LINE` are counted only."""
    rest, skipping = b"", False
    while data := stream.read(block):
        if skipping:
            end = data.find(b"\n")
            if end < 0:
                continue
            data, skipping = data[end + 1 :], False
        data = rest + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if len(rest) > LONGEST_LINE:
            tally.drop(f"line over {LONGEST_LINE} bytes")
            rest, skipping = b"", True
        if end:
            yield _without_long_lines(data[:end], tally)
    if rest:
        yield _without_long_lines(rest + b"\n", tally)


def _without_long_lines(block: bytes, tally: Tally) -> bytes:
    if _longest_line(block) <= LONGEST_LINE:
        return block
    lines = block.split(b"\n")
    kept = [line for line in lines if len(line) <= LONGEST_LINE]
    tally.drop(f"line over {LONGEST_LINE} bytes", len(lines) - len(kept))
    return b"\n".join(kept)


def _longest_line(block: bytes) -> int:
    """At least the length of the longest line of `block`, found by jumping, not by splitting."""
    longest = start = 0
    while start < len(block):
        # The last line break within reach: no line break there means a line over the limit.
        end = block.rfind(b"\n", start, start + LONGEST_LINE + 1)
        if end < 0:
            return LONGEST_LINE + 1
        longest, start = max(longest, end - start), end + 1
    return min(longest, LONGEST_LINE)
