"""Checkpoints as the authors of OVSegmentor released them, turned into ours.

Letters: N patch, T group token, D image width, E text width, C embedding width.

The file is a pickle in a zip; it is read as data (`inert_pickle`), never run. The model's sizes
follow from the tensors' shapes. What shapes cannot tell (attention heads, image size, the kind of
text encoder) is read from the configuration stored beside them.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.errors import ModelError
from ovseg.models.ovsegmentor.inert_pickle import Inert, Name
from ovseg.models.ovsegmentor.torch_archive import TensorRecord, TorchArchive, open_archive

if TYPE_CHECKING:
    from torch import Tensor

_MAX_CONFIG_NODES = 100_000
_MAX_CONFIG_DEPTH = 50
# Classes that released files mention beside tensors: the stored configuration and its types, and
# the numbers of a training log. They are only ever names here.
_INERT_MODULES = re.compile(r"omegaconf(\..+)?|typing|numpy(\.(core|_core)\.multiarray)?|pathlib")
_INERT_TYPES = {"dict", "list", "tuple", "set", "int", "long", "float", "bool", "str", "object"}
_INERT_NUMPY = {"dtype", "ndarray", "scalar", "_reconstruct"}
_INERT_COLLECTIONS = {"defaultdict", "Counter"}
_INERT_PATHS = {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"}


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """What a released file holds, before any tensor is read.

    Attributes:
        path: the file.
        tensors: the model's, by the reference's names.
        config: the stored configuration as plain dictionaries, lists, strings and numbers.
        epoch: epochs trained, or None.
    """

    path: Path
    tensors: Mapping[str, TensorRecord]
    config: Mapping[str, Any]
    epoch: int | None


def read_released(path: Path) -> ReleasedCheckpoint:
    """Read names, shapes and configuration of a released checkpoint; needs no torch.

    Raises:
        ModelError: another kind of file, damaged, or made to run code.
    """
    with open_archive(path, _is_expected) as archive:
        return _describe(path, archive)


def read_released_tensors(path: Path) -> "dict[str, Tensor]":
    """Read the model's tensors by the reference's names.

    Raises:
        ModelError: as `read_released`.
    """
    import torch

    with open_archive(path, _is_expected) as archive:
        records = _describe(path, archive).tensors
        _require_plausible(path, records)
        return {name: _read_tensor(archive, record, torch) for name, record in records.items()}


def _describe(path: Path, archive: TorchArchive) -> ReleasedCheckpoint:
    content = archive.content
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ModelError(f"{path}: no released checkpoint: it holds no 'model'")
    tensors = {
        name.removeprefix("module."): record
        for name, record in state.items()
        if isinstance(name, str) and isinstance(record, TensorRecord)
    }
    if not any(name.startswith("img_encoder.") for name in tensors):
        raise ModelError(f"{path}: a torch file, but not of OVSegmentor: no img_encoder in it")
    config = plain(content.get("config"), str(path))
    epoch = content.get("epoch")
    return ReleasedCheckpoint(
        path=path,
        tensors=tensors,
        config=config if isinstance(config, dict) else {},
        epoch=epoch if isinstance(epoch, int) else None,
    )


def plain(value: Any, where: str) -> Any:
    """The plain values inside OmegaConf's containers and nodes, themselves read as inert data.

    Raises:
        ModelError: nested deeper, or larger, than a configuration can be.
    """
    budget = [_MAX_CONFIG_NODES]

    def walk(value: Any, depth: int) -> Any:
        budget[0] -= 1
        if depth > _MAX_CONFIG_DEPTH or budget[0] < 0:
            raise ModelError(f"{where}: refused: its configuration is too deep or too large")
        if isinstance(value, Inert):
            state = value.state if isinstance(value.state, dict) else {}
            return walk(state.get("_content", state.get("_val")), depth + 1)
        if isinstance(value, dict):
            return {str(key): walk(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [walk(inner, depth + 1) for inner in value]
        return value if isinstance(value, str | int | float) else None

    return walk(value, 0)


def _read_tensor(archive: TorchArchive, record: TensorRecord, torch: Any) -> "Tensor":
    """The tensor's numbers, copied out of the file into memory of its own."""
    if math.prod(record.shape) == 0:
        return torch.empty(record.shape, dtype=getattr(torch, record.dtype))
    numbers = bytearray(archive.storage_bytes(record.storage))
    flat = torch.frombuffer(numbers, dtype=getattr(torch, record.dtype))
    view = torch.as_strided(flat, record.shape, record.strides, record.offset)
    return view.clone(memory_format=torch.contiguous_format)


def _require_plausible(path: Path, records: Mapping[str, TensorRecord]) -> None:
    """Refuse a small file that would fill the memory by naming one storage over and over."""
    items = (math.prod(record.shape) * record.storage.item_bytes for record in records.values())
    if sum(items) > 2 * path.stat().st_size + (1 << 20):
        raise ModelError(f"{path}: refused: its tensors are larger than the file")


def _is_expected(name: Name) -> bool:
    if name.module in ("builtins", "__builtin__"):
        return name.name in _INERT_TYPES
    if name.module == "collections":
        return name.name in _INERT_COLLECTIONS
    if name.module.startswith("numpy"):
        return bool(_INERT_MODULES.fullmatch(name.module)) and name.name in _INERT_NUMPY
    if name.module == "pathlib":
        return name.name in _INERT_PATHS
    return bool(_INERT_MODULES.fullmatch(name.module)) and "." not in name.name
