"""Bytes from any fsspec address: opened, unpacked on the way, and never more than they may be.

What a file unpacks to is bounded by its size: small files that unpack to gigabytes are made to fill
memory or time.
"""

import io
from typing import Any, BinaryIO

import fsspec

from ovseg.documents import TooLongError, read_stream
from ovseg.errors import DataError, OvsegError

TIMES_READ, LEAST_READ = 100, 64 << 20  # what is read block by block may unpack to, of its size
TIMES_HELD, LEAST_HELD = 16, 8 << 20  # and what has to be in memory as a whole
MOST_HELD = 4 << 30  # bytes of a file that is not packed
_UNKNOWN = 1 << 30  # for the size of a file that its server does not tell
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"(\xb5/\xfd": "zstd",
}


def open_binary(address: str, packed: str | None = "infer") -> BinaryIO:
    """Open a file at any fsspec address; .gz, .bz2, .xz and .zst are unpacked on the way.

    Args:
        packed: how it is packed; by default its name tells.

    Raises:
        DataError: it cannot be opened; later, when reading, where it is damaged or unpacks to more
            than `TIMES_READ` its size.
    """
    try:
        if packed == "infer":
            packed = fsspec.utils.infer_compression(address)
        stream = fsspec.open(address, "rb", compression=packed).open()
        if packed is None:
            return stream
        limit = max(TIMES_READ * _size(address), LEAST_READ)
        return io.BufferedReader(_Unpacked(stream, address, limit))
    except FileNotFoundError as error:
        raise DataError(f"{address} does not exist: give the path of a file") from error
    except OvsegError:
        raise
    except Exception as error:  # each file system, and each way to pack, has its own
        detail = str(error) or type(error).__name__
        raise DataError(f"{address} cannot be opened: {detail}") from error


def packed_as(head: bytes) -> str | None:
    """How a file that begins like this is packed; None if it is not."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def is_packed(address: str) -> bool:
    """Whether a file is packed, by its name."""
    return fsspec.utils.infer_compression(address) is not None


def read_whole(address: str) -> bytes:
    """All bytes of a file, which have to be in memory at once.

    Raises:
        DataError: it cannot be opened, is damaged or too large.
    """
    limit = max(TIMES_HELD * _size(address), LEAST_HELD) if is_packed(address) else MOST_HELD
    with open_binary(address) as stream:
        try:
            return read_stream(stream, limit)
        except TooLongError as error:
            advice = "unpack it first" if is_packed(address) else "cut it into several"
            raise DataError(f"{address} holds {error}, too much for memory: {advice}") from error
        except OSError as error:
            raise DataError(f"{address} cannot be read: {error}") from error


def _size(address: str) -> int:
    """The size of a file as it is stored, in bytes."""
    filesystem, path = fsspec.core.url_to_fs(address)
    return filesystem.info(path).get("size") or _UNKNOWN


class _Unpacked(io.RawIOBase):
    """The bytes of a packed file, up to a limit."""

    def __init__(self, stream: Any, address: str, limit: int) -> None:
        self._stream = stream
        self._address = address
        self._limit = limit
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except Exception as error:  # of zlib, lzma, zstandard ..., which share no base
            detail = str(error) or type(error).__name__
            raise DataError(
                f"{self._address} is damaged after {self._count:,} bytes ({detail}): fetch it again"
            ) from error
        self._count += len(data)
        if self._count > self._limit:
            raise DataError(
                f"{self._address} unpacks to more than {TIMES_READ} times its size: if that is "
                "right, unpack it first"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
