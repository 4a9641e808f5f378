"""Checkpoints: one safetensors file that holds all a model needs to run, network or not.

Beside the tensors, its metadata holds the recipe, the model's class, the tokenizer's files and a
content hash. Reading the metadata needs no torch.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ovseg import files
from ovseg.config.dump import to_json
from ovseg.config.load import recipe_from_values
from ovseg.config.schema import Recipe
from ovseg.documents import Bounds, parse_object
from ovseg.errors import ModelError, RecipeError
from ovseg.models.tensor_files import TensorHeader, read_header
from ovseg.models.tokenizer import TokenizerFiles
from ovseg.version import __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")

_log = logging.getLogger(__name__)

ALIGNED = "AlignedModel"
"""The model class of aligned models, of which a checkpoint may leave out the frozen towers."""
_FORMAT = "1"
_NO_HASH = "0" * 64  # stands in the file until its tensors are written and can be hashed
_SHOWN_KEYS = 4
_RECIPE_BOUNDS = Bounds(size=1 << 20)


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
    from safetensors import SafetensorError
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
            header = read_header(temporary)
            found = _hash_content(temporary, header)
            _fill_in_hash(temporary, header, found)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path}: cannot be written: {reason}") from error
    return found


def read_info(path: Path) -> CheckpointInfo:
    """Read what a checkpoint says of itself; needs no torch.

    Raises:
        ModelError: no such file, damaged, no checkpoint of ovseg's, or of a newer version.
    """
    return _info(path, read_header(path))


def _info(path: Path, header: TensorHeader) -> CheckpointInfo:
    metadata = header.metadata
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
        tensors={name: entry.shape for name, entry in header.tensors.items()},
    )


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
    check_shapes(module, shapes_of(tensors), where)
    check_finite(tensors, where)
    module.load_state_dict(tensors)


def check_shapes(module: "nn.Module", shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compare names and shapes with a module's, which may lie on the device `meta`.

    Raises:
        ModelError: naming missing, unexpected and misshapen tensors, a few of each.
    """
    wanted = shapes_of(module.state_dict())
    shapes = _unwrapped(shapes, wanted)
    misshapen = [
        f"{name} ({list(shapes[name])} in the file, {list(wanted[name])} in the model)"
        for name in wanted
        if name in shapes and shapes[name] != wanted[name]
    ]
    problems = [
        _few("missing", [name for name in wanted if name not in shapes]),
        _few("unexpected", [name for name in shapes if name not in wanted]),
        _few("of another shape", misshapen),
    ]
    if any(problems):
        listed = "; ".join(problem for problem in problems if problem)
        raise ModelError(f"{where}: does not fit {type(module).__name__}: {listed}")


def shapes_of(tensors: Mapping[str, "Tensor"]) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


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


def _unwrapped(found: Mapping[str, T], wanted: Mapping[str, Any]) -> Mapping[str, T]:
    """What there is by the model's own names; as it is where two would get the same."""
    names = {name: name if name in wanted else own_name(name) for name in found}
    if len(set(names.values())) < len(names):
        return found
    return {names[name]: value for name, value in found.items()}


def content_is_intact(path: Path) -> bool:
    """Whether the content still has the hash that was written down; reads the whole file."""
    header = read_header(path)
    return _hash_content(path, header) == header.metadata.get("ovseg.content_hash")


def content_hash(path: Path) -> str:
    """The content's hash as it is here, whatever the file claims.

    The file is read through once, and again when it has changed.

    Raises:
        ModelError: as `read_info`.
    """
    found = files.remembered(
        path, "checkpoint", lambda path: _hash_content(path, read_header(path))
    )
    claimed = read_header(path).metadata.get("ovseg.content_hash")
    if claimed and claimed != found:
        _log.warning("%s: its content is not what was written: altered, or damaged", path)
    return found


def _few(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    noun = "tensor" if len(names) == 1 else "tensors"
    return f"{len(names)} {noun} {kind}: {', '.join(names[:_SHOWN_KEYS])}{more}"


def _read_recipe(path: Path, text: str, version: str) -> Recipe:
    values = parse_object(text, f"{path}: its recipe is damaged", _RECIPE_BOUNDS, ModelError)
    try:
        return recipe_from_values(values, "recipe")
    except RecipeError as error:
        raise ModelError(
            f"{path}: written by ovseg {version}, its recipe does not fit {__version__}: {error}"
        ) from None


def _hash_content(path: Path, header: TensorHeader) -> str:
    """SHA-256 over what decides an embedding: tensors by name, `[model]` and the tokenizer."""
    metadata = header.metadata
    recipe = parse_object(metadata.get("ovseg.recipe", "{}"), str(path), _RECIPE_BOUNDS, ModelError)
    tokenizer, model_class = (metadata.get(f"ovseg.{key}") for key in ("tokenizer", "model_class"))
    digest = hashlib.sha256()
    described = [recipe.get("model"), tokenizer, model_class]
    digest.update(json.dumps(described, sort_keys=True).encode())
    with path.open("rb") as stream:
        for name, entry in sorted(header.tensors.items()):
            digest.update(json.dumps([name, entry.dtype, list(entry.shape)]).encode())
            stream.seek(entry.start)
            _update(digest, stream, entry.end - entry.start)
    return digest.hexdigest()


def _update(digest: Any, stream: Any, count: int) -> None:
    while count > 0 and (chunk := stream.read(min(count, 1 << 20))):
        digest.update(chunk)
        count -= len(chunk)


def _fill_in_hash(path: Path, header: TensorHeader, found: str) -> None:
    """Put the hash where its stand-in is, and the metadata in order, so that equal is equal.

    Both hashes have 64 letters and safetensors pads its header with spaces: nothing else moves.
    """
    metadata = {**header.metadata, "ovseg.content_hash": found}
    written = {**header.raw, "__metadata__": dict(sorted(metadata.items()))}
    text = json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > header.body - 8:
        raise ModelError(f"{path}: its header cannot be rewritten in place")
    with path.open("rb+") as stream:
        stream.seek(8)
        stream.write(text.ljust(header.body - 8))
