"""Files of safetensors, looked through before anything of them is made.

A header may be long, hold a million tensors of no size or shapes of a million axes: it is bounded
before it is parsed, and safetensors itself then checks that header and file agree. Reading one
needs no torch.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.documents import Bounds, parse_object
from ovseg.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

_MAX_BYTES = 100_000_000  # of a header, as safetensors itself
_MAX_TENSORS = 100_000
_MAX_COMMAS = 8_000_000  # a large tokenizer has two million
_BOUNDS = Bounds(size=_MAX_BYTES, depth=4)


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies in its file, in bytes, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of itself.

    Attributes:
        metadata: texts by name.
        tensors: by name.
        raw: the header as it stands in the file.
        body: where the tensors' bytes begin.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorEntry]
    raw: Mapping[str, Any]
    body: int


def read_header(path: Path) -> TensorHeader:
    """The header of a file that is whole.

    Raises:
        ModelError: no such file, no safetensors file, cut off, or beyond the bounds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        content = _header_bytes(path)
        with safe_open(path, framework="numpy"):
            pass
    except OSError as error:  # safetensors sets no strerror
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ModelError(f"{path}: cannot be read: {reason}") from None
    except (SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path}: no safetensors file, or one that is incomplete ({error}); fetch it again"
        ) from None
    raw = parse_object(content, f"{path}: its header", _BOUNDS, ModelError)
    body = 8 + len(content)
    entries = {name: entry for name, entry in raw.items() if name != "__metadata__"}
    return TensorHeader(
        metadata=raw.get("__metadata__") or {},
        tensors={name: _entry(entry, body) for name, entry in entries.items()},
        raw=raw,
        body=body,
    )


def read_tensors(path: Path, device: str = "cpu") -> "dict[str, Tensor]":
    """All tensors of a file, for torch.

    Raises:
        ModelError: as `read_header`, or a tensor has a type that torch lacks.
    """
    from safetensors.torch import load_file

    read_header(path)
    try:
        return load_file(path, device=device)
    except Exception as error:  # safetensors and torch each have their own
        raise ModelError(f"{path}: its tensors cannot be read: {error!r}") from error


def read_arrays(path: Path) -> "tuple[dict[str, npt.NDArray], Mapping[str, str]]":
    """All tensors of a file, for NumPy, and its metadata.

    Raises:
        ModelError: as `read_tensors`.
    """
    from safetensors.numpy import load_file

    header = read_header(path)
    try:
        return load_file(path), header.metadata
    except Exception as error:
        raise ModelError(f"{path}: its tensors cannot be read: {error!r}") from error


def _header_bytes(path: Path) -> bytes:
    """The header's text; ValueError for one that nobody could have written for a model."""
    if stat.S_ISFIFO(path.stat().st_mode):
        raise ValueError("a pipe")  # one could wait for it for ever
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _MAX_BYTES:
            raise ValueError("its header is too long")
        content = stream.read(length)
    if content.count(b"data_offsets") > _MAX_TENSORS or content.count(b",") > _MAX_COMMAS:
        raise ValueError("its header lists more than any model has")
    return content


def _entry(entry: Mapping[str, Any], body: int) -> TensorEntry:
    start, end = entry["data_offsets"]
    return TensorEntry(entry["dtype"], tuple(entry["shape"]), body + start, body + end)
