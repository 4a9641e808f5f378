"""Checkpoints as the authors of OVSegmentor released them.

Letters: N patch, T group token, D image width, E text width, C embedding width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.errors import ModelError
from ovseg.models.torch_file import TorchFile, plain, read_torch_file

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ReleasedCheckpoint:
    """What a released file holds.

    Attributes:
        path: the file.
        tensors: the model's, by the reference's names; they lie in the file until they are used.
        config: the stored configuration as plain dictionaries, lists, strings and numbers.
        epoch: epochs trained, or None.
    """

    path: Path
    tensors: "Mapping[str, Tensor]"
    config: Mapping[str, Any]
    epoch: int | None


def read_released(path: Path) -> ReleasedCheckpoint:
    """Read a released checkpoint; nothing in it runs.

    Raises:
        ModelError: another kind of file, damaged, or made to run code.
        MissingDependencyError: torch is not installed.
    """
    return released_checkpoint(read_torch_file(path))


def released_checkpoint(file: TorchFile) -> ReleasedCheckpoint:
    """The checkpoint that a file holds.

    Raises:
        ModelError: it holds something else.
    """
    path, content = file.path, file.content
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ModelError(f"{path}: no released checkpoint: it holds no 'model'")
    tensors = file.tensors(state)
    if not any(name.startswith("img_encoder.") for name in tensors):
        raise ModelError(f"{path}: a torch file, but not of OVSegmentor: no img_encoder in it")
    config, epoch = plain(content.get("config"), str(path)), content.get("epoch")
    return ReleasedCheckpoint(
        path=path,
        tensors=tensors,
        config=config if isinstance(config, dict) else {},
        epoch=epoch if isinstance(epoch, int) else None,
    )
