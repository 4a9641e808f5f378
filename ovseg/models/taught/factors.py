"""Factors of low-rank updates as files hold them; reading them needs no torch.

Letters: O outputs and I inputs of a weight, R rank.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ovseg.errors import ModelError
from ovseg.files import replacing
from ovseg.models.tensor_files import read_arrays

Floats = npt.NDArray[np.float32]

PREFIX = "update."
"""In front of their names in a file."""


class Factors(NamedTuple):
    """Of the update of one weight."""

    up: Floats  # [O, R]
    down: Floats  # [R, I]


Updates = Mapping[str, Factors]
"""By the weight's name in the tower."""


def as_arrays(updates: Updates) -> dict[str, Floats]:
    """Updates as a file holds them, by name."""
    return {
        f"{PREFIX}{name}.{part}": values
        for name, factors in updates.items()
        for part, values in factors._asdict().items()
    }


def from_arrays(arrays: Mapping[str, npt.NDArray], where: Path) -> Updates:
    """The updates among the arrays of a file.

    Raises:
        ModelError: a factor is missing.
    """
    names = dict.fromkeys(
        key.removeprefix(PREFIX).rpartition(".")[0] for key in arrays if key.startswith(PREFIX)
    )
    try:
        return {
            name: Factors(
                *(arrays[f"{PREFIX}{name}.{part}"].astype(np.float32) for part in Factors._fields)
            )
            for name in names
        }
    except KeyError as error:
        raise ModelError(f"{where}: damaged: without its {error.args[0]}") from None


def write_updates(path: Path, updates: Updates) -> None:
    """Write updates alone, whole or not at all.

    Raises:
        ModelError: they cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with replacing(path) as temporary:
            save_file(as_arrays(updates), temporary)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be written: {error}") from error


def read_updates(path: Path) -> Updates:
    """Read what `write_updates` wrote.

    Raises:
        ModelError: the file is damaged.
    """
    return from_arrays(read_arrays(path)[0], path)


def digest_of(updates: Updates) -> str:
    """SHA-256 of updates."""
    digest = hashlib.sha256()
    for name, values in sorted(as_arrays(updates).items()):
        digest.update(f"{name} {values.shape}\n".encode() + values.tobytes())
    return digest.hexdigest()
