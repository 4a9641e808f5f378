"""The files of `torch.save` since torch 1.6: a zip of one pickle and a record per storage.

Only the layout is read here, without torch: the pickle as inert data, tensors as `TensorRecord`s
that know where their numbers lie. Every number the file gives is checked against the file itself.
"""

import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.errors import ModelError
from ovseg.models.ovsegmentor.inert_pickle import Allow, Name, make_inert, read_pickle

_MAX_PICKLE_BYTES = 256 << 20
_MAX_DIMENSIONS = 16
# torch's name of a storage type: the dtype's name, and its bytes per item.
_STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}
# What zipfile raises on files that are cut, altered or made up.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)
_REBUILD = Name("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = Name("torch._utils", "_rebuild_parameter")
_ORDERED = Name("collections", "OrderedDict")


@dataclass(frozen=True)
class StorageRecord:
    """Numbers in a row: the zip's record, torch's name of the dtype, and how many there are."""

    record: str
    dtype: str
    count: int
    item_bytes: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor that was not read yet: a view of a storage, offset and strides in items."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.storage.dtype


class TorchArchive:
    """An open archive. `content` is what was saved, tensors as `TensorRecord`s."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, allow: Allow) -> None:
        self._path, self._zip = path, archive
        self._prefix = self._find_prefix()
        self._check_byte_order()
        pickled = self._read(f"{self._prefix}data.pkl", _MAX_PICKLE_BYTES)

        def expected(name: Name) -> bool:
            return _is_tensor_name(name) or allow(name)

        self.content = read_pickle(pickled, str(path), expected, self._make, self._storage)

    def storage_bytes(self, storage: StorageRecord) -> bytes:
        """The numbers of a storage, little-endian."""
        return self._read(storage.record, storage.count * storage.item_bytes)

    def _find_prefix(self) -> str:
        found = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ModelError(f"{self._path}: a zip, but not one that torch.save wrote")
        return found[0].removesuffix("data.pkl")

    def _check_byte_order(self) -> None:
        record = f"{self._prefix}byteorder"
        if record in self._zip.namelist() and self._read(record, 16) != b"little":
            raise ModelError(f"{self._path}: written on a big-endian machine, which is not read")

    def _read(self, record: str, most: int) -> bytes:
        """A record's bytes; torch never compresses them, so none can be larger than the file."""
        info = self._zip.getinfo(record)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
            raise ModelError(f"{self._path}: record {record} is compressed or too large")
        return self._zip.read(info)

    def _make(self, name: Name, arguments: tuple[Any, ...]) -> Any:
        if name == _REBUILD:
            return self._tensor(*arguments[:4])
        if name == _REBUILD_PARAMETER and isinstance(arguments[0], TensorRecord):
            return arguments[0]
        if _is_tensor_name(name) and name != _ORDERED:
            raise ModelError(f"{self._path}: refused: its pickle misuses {name}")
        return make_inert(name, arguments)

    def _storage(self, reference: Any) -> StorageRecord:
        """The record of a persistent id: ("storage", type, key, device, count)."""
        label, kind, key, _, count = reference
        if label != "storage" or not isinstance(kind, Name) or kind.name not in _STORAGES:
            raise ModelError(f"{self._path}: refused: it refers to something that is no storage")
        if not isinstance(key, str) or not key.isalnum() or not _is_size(count):
            raise ModelError(f"{self._path}: a storage has an impossible key or size")
        dtype, item_bytes = _STORAGES[kind.name]
        storage = StorageRecord(f"{self._prefix}data/{key}", dtype, count, item_bytes)
        if storage.record not in self._zip.NameToInfo:
            raise ModelError(f"{self._path}: storage {key} is missing; the file is incomplete")
        if self._zip.getinfo(storage.record).file_size != count * storage.item_bytes:
            raise ModelError(f"{self._path}: storage {key} has not the size it claims")
        return storage

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> TensorRecord:
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, StorageRecord) or not all(_is_size(n) for n in numbers):
            raise ModelError(f"{self._path}: a tensor is no view of a storage")
        if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
            raise ModelError(f"{self._path}: a tensor has impossible dimensions")
        reach = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        items = math.prod(shape)
        if items and (reach >= storage.count or items > storage.count):
            raise ModelError(f"{self._path}: a tensor reaches beyond its storage")
        return TensorRecord(storage, offset, tuple(shape), tuple(strides))


@contextmanager
def open_archive(path: Path, allow: Allow) -> Iterator[TorchArchive]:
    """Open what `torch.save` wrote; `allow` says which further names its pickle may mention.

    Raises:
        ModelError: not such a file, damaged, or made to run code.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not start.startswith(b"PK"):
        raise ModelError(f"{path}: {_what_else(start)}")
    try:
        with zipfile.ZipFile(path) as archive:
            yield TorchArchive(path, archive, allow)
    except _ZIP_ERRORS as error:
        raise ModelError(f"{path}: damaged or incomplete ({error}); fetch it again") from None


def _what_else(start: bytes) -> str:
    if start[:1] == b"\x80" or start[257:262] == b"ustar":
        return (
            "written by torch before 1.6, in a format that cannot be read without running it. "
            "Where you trust the file, load it with torch there and save it again"
        )
    return "no file of torch.save"


def _is_tensor_name(name: Name) -> bool:
    is_storage = name.module == "torch" and name.name in _STORAGES
    return is_storage or name in (_REBUILD, _REBUILD_PARAMETER, _ORDERED)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48
