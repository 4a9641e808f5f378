"""Talk2DINO's released projections (Barsellotti et al. 2024) as aligned models.

A released file holds the two layers between CLIP's text features and DINO's patches. Which DINO
they were trained for it does not say: it is known by the file's hash, or has to be told.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.config.load import load_recipe
from ovseg.config.schema import Recipe
from ovseg.errors import ModelError, UsageError
from ovseg.files import sha256
from ovseg.models.aligned.projections import LICENCE, RELEASED
from ovseg.models.checkpoint import ALIGNED, check_finite, write_checkpoint
from ovseg.models.ovsegmentor.conversion import Conversion
from ovseg.models.torch_file import TorchFile

if TYPE_CHECKING:
    from torch import Tensor

TOWER_KEY = "model.aligned.vision.tower"

_FIRST, _SECOND = "linear_layer", "hidden_layers.0"
_OLD_SECOND = "linear_layer2"  # in files from before the layers were a list
_NAMES = {_FIRST: "head.text_projection.hidden", _SECOND: "head.text_projection.out"}


def is_projection(file: TorchFile) -> bool:
    """Whether a file holds such a projection."""
    content = file.content
    return isinstance(content, dict) and f"{_FIRST}.weight" in content


def convert_projection(file: TorchFile, out: Path, overrides: Sequence[str] = ()) -> Conversion:
    """Write a projection as an aligned model whose towers come by name.

    Args:
        file: the authors' file.
        out: the file to write.
        overrides: `model.section.key=value`, such as the tower of a file that is not known.

    Raises:
        ModelError: the file holds something else, or numbers that are not finite.
        UsageError: nothing tells which DINO it is for.
    """
    first, second = _layers(file)
    recipe = projection_recipe(file, first, overrides)
    aligned = recipe.model.aligned
    assert aligned is not None
    import torch

    head = {
        **{f"{_NAMES[_FIRST]}.{name}": tensor for name, tensor in first.items()},
        **{f"{_NAMES[_SECOND]}.{name}": tensor for name, tensor in second.items()},
        "head.scale_log": torch.tensor(math.log(aligned.logits.scale)),
        "head.bias": torch.tensor(float(aligned.logits.bias)),
    }
    check_finite(head, str(file.path))
    content_hash = write_checkpoint(
        out,
        head,
        recipe,
        model_class=ALIGNED,
        description=f"Talk2DINO's {file.path.name} for {aligned.vision.tower}",
        licence=LICENCE,
    )
    return Conversion.of(head, False, content_hash)


def projection_recipe(
    file: TorchFile, first: Mapping[str, "Tensor"], overrides: Sequence[str]
) -> Recipe:
    """The authors' recipe, with the tower that the projection was trained for."""
    changes = list(overrides)
    if not any(change.startswith(f"{TOWER_KEY}=") for change in changes):
        changes.append(f"{TOWER_KEY}={_known_tower(file.path)}")
    width = int(first["weight"].shape[0])
    return load_recipe("talk2dino", [f"model.embedding_width={width}", *changes])


def tower_of(path: Path) -> str:
    """The DINO that a released file was trained for; an empty string for an unknown file."""
    found = sha256(path)
    return next((each.tower for each in RELEASED.values() if each.sha256 == found), "")


def _known_tower(path: Path) -> str:
    if found := tower_of(path):
        return found
    known = " or ".join(each.tower for each in RELEASED.values())
    raise UsageError(
        f"{path}: not one of the released files by its hash, and it does not say which DINO it "
        f"was trained for: add --set {TOWER_KEY}=NAME, such as {known}"
    )


def _layers(file: TorchFile) -> tuple[dict[str, "Tensor"], dict[str, "Tensor"]]:
    """Weight and bias of both layers, of shapes that fit together."""
    tensors = file.tensors(file.content)
    renamed = {name.replace(f"{_OLD_SECOND}.", f"{_SECOND}."): t for name, t in tensors.items()}
    wanted = [f"{layer}.{part}" for layer in (_FIRST, _SECOND) for part in ("weight", "bias")]
    if sorted(renamed) != sorted(wanted):
        raise ModelError(
            f"{file.path}: a projection of Talk2DINO has {', '.join(wanted)}; this file has "
            f"{', '.join(sorted(renamed)) or 'no tensors'}"
        )
    first, second = (
        {part: renamed[f"{layer}.{part}"].float() for part in ("weight", "bias")}
        for layer in (_FIRST, _SECOND)
    )
    width = len(first["bias"])
    shapes = [tuple(t.shape) for t in (first["weight"], *second.values())]
    if len(shapes[0]) != 2 or shapes != [(width, shapes[0][-1]), (width, width), (width,)]:
        raise ModelError(f"{file.path}: its layers do not fit each other: {shapes}")
    return first, second
