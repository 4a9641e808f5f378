"""Text that is not UTF-8, on its way through a parser that would give up at it.

What is no UTF-8 is written as one character that no text has, so that rows stay rows; the values
with it are turned back into bytes that are none, and counted as such.
"""

import codecs
import io
import re
from typing import Any, BinaryIO

import polars as pl

_MARK = "\U0010ffff"  # which Unicode promises never to use
_ESCAPED = re.compile("[\udc80-\udcff]+")  # what Python makes of bytes that are no UTF-8
_PIECE = 1 << 20


def mark(data: bytes) -> bytes:
    """Lines with a mark in place of bytes that are not UTF-8."""
    try:
        data.decode("utf-8")
        return data
    except UnicodeDecodeError:
        return _marked(data.decode("utf-8", "surrogateescape"))


def unmark(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows in which every value of bytes with a mark is not UTF-8 any more."""
    mark = pl.lit(_MARK.encode("utf-8"))
    return rows.with_columns(
        pl.when(pl.col(name).bin.contains(mark)).then(pl.lit(b"\xff")).otherwise(name).alias(name)
        for name, kind in rows.schema.items()
        if kind == pl.Binary
    )


def marked_stream(stream: BinaryIO) -> BinaryIO:
    """A stream of the same text, marked."""
    return io.BufferedReader(_Marked(stream), _PIECE)


def _marked(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _ESCAPED.sub(_MARK, text).encode("utf-8")


class _Marked(io.RawIOBase):
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._ready = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not (self._ready or self._ended):
            data = self._stream.read(_PIECE)
            self._ended = not data
            self._ready = memoryview(_marked(self._decode(data, self._ended)))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
