"""Text that comes later in a file than what is written meanwhile, kept out of memory."""

from tempfile import SpooledTemporaryFile
from typing import IO

_IN_MEMORY = 1 << 20  # bytes; more goes to a file that no crash leaves behind


class Waiting:
    """Pieces of text, in order, until they are poured into a stream."""

    def __init__(self, between: str = "") -> None:
        self._between = between
        self._file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (open until it is poured)

    def add(self, piece: str) -> None:
        """Keep a piece, apart from the one before."""
        self._file.write(f"{self._between if self._file.tell() else ''}{piece}".encode())

    def pour(self, stream: IO[bytes]) -> None:
        """Write all into a stream, and forget it."""
        with self._file:
            self._file.seek(0)
            while piece := self._file.read(_IN_MEMORY):
                stream.write(piece)
