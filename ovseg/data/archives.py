"""The members of tar files that anyone may have written.

A header says how long what follows is. The standard library follows it: a size of 2^62 in a file of
10 kB is skipped for ever, and a long name of gigabytes is read into memory. Here a size is looked
at first, and all that can go wrong is one error.
"""

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from ovseg.errors import DataError

_LONGEST_HEADER = 16 << 10  # bytes of a long name or of further headers
_FURTHER = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_AFTER_THE_END = 3  # readings that may find nothing
_FAULTS = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    MemoryError,
    DataError,
    zlib.error,
    lzma.LZMAError,
)


class DamagedTarError(Exception):
    """A tar file is damaged, or claims what it cannot hold; what came before is sound."""


class _Member(tarfile.TarInfo):
    """A header that is judged before what it says is followed."""

    @classmethod
    def frombuf(cls, *arguments: Any, **named: Any) -> "_Member":
        try:
            member = super().frombuf(*arguments, **named)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise  # the end, with its mark or without
        except tarfile.HeaderError as error:  # which the library would take for the end
            raise tarfile.ReadError(str(error)) from error
        if member.size < 0 or (member.type in _FURTHER and member.size > _LONGEST_HEADER):
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member


class _Ending(io.RawIOBase):
    """A stream that says so when one reads on and on after its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._empty = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._empty += not data
        if self._empty > _AFTER_THE_END:
            raise EOFError("it ends too soon")
        return data


@contextmanager
def open_tar(stream: BinaryIO, *, forwards: bool) -> Iterator[tarfile.TarFile]:
    """A tar file that is not packed.

    Args:
        stream: of its bytes.
        forwards: whether it is read once through; else members can be read in any order.

    Raises:
        DamagedTarError: it is none; or what `tarfile` raises in the block.
    """
    try:
        source: Any = _Ending(stream) if forwards else stream
        mode = "r|" if forwards else "r:"
        with tarfile.open(fileobj=source, mode=mode, tarinfo=_Member) as archive:  # type: ignore[call-overload]
            yield archive
    except _FAULTS as error:
        raise DamagedTarError(str(error) or type(error).__name__) from error


def members(archive: tarfile.TarFile, limit: int) -> Iterator[tarfile.TarInfo]:
    """The members of an archive from `open_tar`, none of which is remembered.

    Raises:
        DamagedTarError: one is damaged, or claims more than `limit` bytes.
    """
    try:
        while (member := archive.next()) is not None:
            if not 0 <= member.size <= limit:  # also where a further header said so
                raise tarfile.ReadError(f"a member of {member.size} bytes")
            archive.members.clear()  # type: ignore[attr-defined]
            yield member
    except _FAULTS as error:
        raise DamagedTarError(str(error) or type(error).__name__) from error
