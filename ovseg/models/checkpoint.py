"""Checkpoints: one safetensors file that holds all a model needs to run, network or not.

Beside the tensors, its metadata holds the recipe, the model's class, the tokenizer's files and a
content hash. Reading the metadata needs no torch.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg import files
from ovseg.config.dump import to_json
from ovseg.config.load import recipe_from_values
from ovseg.config.schema import Recipe
from ovseg.errors import ModelError, RecipeError
from ovseg.models.tokenizer import TokenizerFiles
from ovseg.version import __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

ALIGNED = "AlignedModel"
"""The model class of aligned models, of which a checkpoint may leave out the frozen towers."""
_FORMAT = "1"
_NO_HASH = "0" * 64  # stands in the file until its tensors are written and can be hashed
_SHOWN_KEYS = 4
_MAX_HEADER_BYTES = 100_000_000  # as safetensors itself


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        model_class: name of the class whose state the tensors are.
        recipe: of the run that made it.
        version: of ovseg that wrote it.
        tokenizer: of the text encoder; None where the file brings none.
        description: one sentence on what the model learned from.
        licence: SPDX expression of the weights, or an empty string.
        content_hash: SHA-256 over tensors, `[model]` and tokenizer.
        tensors: shape of each, by name.
    """

    model_class: str
    recipe: Recipe
    version: str
    tokenizer: TokenizerFiles | None
    description: str
    licence: str
    content_hash: str
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """Numbers in all tensors, buffers included."""
        return sum(math.prod(shape) for shape in self.tensors.values())


def write_checkpoint(
    path: Path,
    tensors: Mapping[str, "Tensor"],
    recipe: Recipe,
    *,
    model_class: str = "OVSegmentor",
    tokenizer: TokenizerFiles | None = None,
    description: str = "",
    licence: str = "",
) -> str:
    """Write a checkpoint, whole or not at all, and return its content hash.

    Args:
        tensors: a module's state, on any device; tied tensors are stored twice.
    """
    from safetensors.torch import save_file

    metadata = {
        "format": "pt",
        "ovseg.format": _FORMAT,
        "ovseg.version": __version__,
        "ovseg.model_class": model_class,
        "ovseg.recipe": to_json(recipe),
        "ovseg.tokenizer": tokenizer.to_json() if tokenizer else "",
        "ovseg.description": description,
        "ovseg.licence": licence,
        "ovseg.content_hash": _NO_HASH,
    }
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with files.replacing(path) as temporary:
            save_file(own, temporary, metadata)
            found = _hash_content(temporary)
            _fill_in_hash(temporary, found)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror or error}") from error
    return found


def read_info(path: Path) -> CheckpointInfo:
    """Read what a checkpoint says of itself; needs no torch.

    Raises:
        ModelError: no such file, damaged, no checkpoint of ovseg's, or of a newer version.
    """
    header = _read_header(path)
    metadata: dict[str, str] = header.pop("__metadata__", {})
    if "ovseg.recipe" not in metadata:
        raise ModelError(f"{path}: a safetensors file, but no checkpoint of ovseg")
    version = metadata.get("ovseg.version", "unknown")
    if metadata.get("ovseg.format") != _FORMAT:
        raise ModelError(f"{path}: written by ovseg {version} in a newer format: update ovseg")
    return CheckpointInfo(
        model_class=metadata.get("ovseg.model_class", ""),
        recipe=_read_recipe(path, metadata["ovseg.recipe"], version),
        version=version,
        tokenizer=TokenizerFiles.from_json(metadata.get("ovseg.tokenizer", ""), str(path)),
        description=metadata.get("ovseg.description", ""),
        licence=metadata.get("ovseg.licence", ""),
        content_hash=metadata.get("ovseg.content_hash", ""),
        tensors={name: tuple(entry["shape"]) for name, entry in header.items()},
    )


def read_tensors(path: Path, device: str = "cpu") -> dict[str, "Tensor"]:
    """Read all tensors of a safetensors file.

    Raises:
        ModelError: no such file, or damaged.
    """
    from safetensors.torch import load_file

    _read_header(path)
    return load_file(path, device=device)


def load_state(module: "nn.Module", tensors: Mapping[str, "Tensor"], where: str) -> None:
    """Load a state whose names and shapes are exactly the module's and whose numbers are finite.

    Names may have the prefixes that compiled or distributed models put before their own.

    Args:
        where: what to call the tensors in messages, such as their file.

    Raises:
        ModelError: naming missing, unexpected and misshapen tensors, a few of each, or those with
            NaN or infinity in them.
    """
    wanted = module.state_dict()
    tensors = _unwrapped(tensors, wanted)
    shared = [name for name in wanted if name in tensors]
    misshapen = [
        f"{name} ({list(tensors[name].shape)} in the file, {list(wanted[name].shape)} in the model)"
        for name in shared
        if tensors[name].shape != wanted[name].shape
    ]
    problems = [
        _few("missing", [name for name in wanted if name not in tensors]),
        _few("unexpected", [name for name in tensors if name not in wanted]),
        _few("of another shape", misshapen),
    ]
    if any(problems):
        listed = "; ".join(problem for problem in problems if problem)
        raise ModelError(f"{where}: does not fit {type(module).__name__}: {listed}")
    check_finite(tensors, where)
    module.load_state_dict(tensors)


def own_name(name: str) -> str:
    """A tensor's name in the model itself: `torch.compile` and data parallelism prefix theirs."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def check_finite(tensors: Mapping[str, "Tensor"], where: str) -> None:
    """Refuse weights that can only give NaN, such as those of a run that has diverged.

    Raises:
        ModelError: naming a few of the tensors.
    """
    broken = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if broken:
        listed = _few("with NaN or infinity", broken)
        raise ModelError(
            f"{where}: {listed}: these weights are of no use; take a checkpoint from before"
        )


def _is_finite(tensor: "Tensor") -> bool:
    """By the sum, which is quicker, and one by one only where that is not finite."""
    import torch

    if not tensor.is_floating_point():
        return True
    whole = torch.isfinite(tensor.sum(dtype=torch.float32))
    return bool(whole) or bool(torch.isfinite(tensor).all())


def _unwrapped(
    tensors: Mapping[str, "Tensor"], wanted: Mapping[str, "Tensor"]
) -> Mapping[str, "Tensor"]:
    """The tensors by the model's own names; as they are where two would get the same."""
    names = {name: name if name in wanted else own_name(name) for name in tensors}
    if len(set(names.values())) < len(names):
        return tensors
    return {names[name]: tensor for name, tensor in tensors.items()}


def content_is_intact(path: Path) -> bool:
    """Whether the content still has the hash that was written down; reads the whole file."""
    expected = read_info(path).content_hash
    return _hash_content(path) == expected


def _few(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    noun = "tensor" if len(names) == 1 else "tensors"
    return f"{len(names)} {noun} {kind}: {', '.join(names[:_SHOWN_KEYS])}{more}"


def _read_header(path: Path) -> dict[str, Any]:
    """The header, after safetensors has checked that it and the file's length agree."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
        return _parse_header(path)[0]
    except OSError as error:  # safetensors sets no strerror
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ModelError(f"{path}: cannot be read: {reason}") from None
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: no safetensors file, or one that is incomplete ({error}); fetch it again"
        ) from None


def _parse_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors' bytes begin."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError("its header is too long")
        return json.loads(stream.read(length)), 8 + length


def _read_recipe(path: Path, text: str, version: str) -> Recipe:
    try:
        return recipe_from_values(json.loads(text), "recipe")
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: its recipe is damaged") from None
    except RecipeError as error:
        raise ModelError(
            f"{path}: written by ovseg {version}, its recipe does not fit {__version__}: {error}"
        ) from None


def _hash_content(path: Path) -> str:
    """SHA-256 over what decides an embedding: tensors by name, `[model]` and the tokenizer."""
    header, body = _parse_header(path)
    metadata = header.pop("__metadata__")
    recipe = json.loads(metadata["ovseg.recipe"])
    digest = hashlib.sha256()
    described = [recipe["model"], metadata["ovseg.tokenizer"], metadata["ovseg.model_class"]]
    digest.update(json.dumps(described, sort_keys=True).encode())
    with path.open("rb") as stream:
        for name, entry in sorted(header.items()):
            digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
            start, end = entry["data_offsets"]
            stream.seek(body + start)
            _update(digest, stream, end - start)
    return digest.hexdigest()


def _update(digest: Any, stream: Any, count: int) -> None:
    while count > 0:
        chunk = stream.read(min(count, 1 << 20))
        digest.update(chunk)
        count -= len(chunk)


def _fill_in_hash(path: Path, found: str) -> None:
    """Put the hash where its stand-in is, and the metadata in order, so that equal is equal.

    Both hashes have 64 letters and safetensors pads its header with spaces: nothing else moves.
    """
    header, body = _parse_header(path)
    header["__metadata__"]["ovseg.content_hash"] = found
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > body - 8:
        raise ModelError(f"{path}: its header cannot be rewritten in place")
    with path.open("rb+") as stream:
        stream.seek(8)
        stream.write(text.ljust(body - 8))
