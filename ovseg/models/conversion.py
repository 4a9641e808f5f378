"""From a released checkpoint to one of ours."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.config.loading import recipe_from_values
from ovseg.config.model import TextEncoderConfig
from ovseg.config.schema import Recipe
from ovseg.errors import MissingDependencyError, ModelError, UsageError
from ovseg.models.checkpoint import load_state, write_checkpoint
from ovseg.models.released import read_released, read_released_tensors
from ovseg.models.released_config import released_model_values
from ovseg.models.tokenizer_files import TokenizerFiles, fetch_tokenizer_files

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversion:
    """What came of a conversion.

    Attributes:
        tensors, parameters: how many the new file holds.
        has_tokenizer: whether it brings its tokenizer along.
        content_hash: of the new file.
    """

    tensors: int
    parameters: int
    has_tokenizer: bool
    content_hash: str


def convert_released(source: Path, out: Path, overrides: Sequence[str] = ()) -> Conversion:
    """Turn a released checkpoint into a safetensors file of ours.

    Args:
        source: the released `.pth`.
        out: the file to write.
        overrides: `model.section.key=value` for what the file does not tell, or tells wrongly.

    Raises:
        ModelError: the file is refused, damaged, or fits no model of ours.
        UsageError: the file does not tell a size, or sizes and overrides contradict each other.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("torch", "torch", "converting a checkpoint") from error
    from ovseg.models.build import build_ovsegmentor
    from ovseg.models.released_keys import released_to_ours

    values = {"model": released_model_values(read_released(source))}
    recipe = _recipe(values, source, overrides)
    model = build_ovsegmentor(recipe.model)
    load_state(model, released_to_ours(read_released_tensors(source)), str(source))
    state = model.state_dict()
    tokenizer = _tokenizer(recipe.model.text, out)
    content_hash = write_checkpoint(
        out,
        state,
        recipe,
        tokenizer=tokenizer,
        description=f"converted from the released {source.name}",
        licence="LicenseRef-non-commercial",
    )
    parameters = sum(tensor.numel() for tensor in state.values())
    return Conversion(len(state), parameters, tokenizer is not None, content_hash)


def _recipe(values: dict[str, Any], source: Path, overrides: Sequence[str]) -> Recipe:
    says_heads = any(override.startswith("model.text.heads=") for override in overrides)
    if values["model"]["text"]["heads"] is None and not says_heads:
        raise UsageError(
            f"{source}: nothing in it tells the attention heads of its text encoder: "
            "add --set model.text.heads=N"
        )
    return recipe_from_values(values, str(source), overrides)


def _tokenizer(text: TextEncoderConfig, out: Path) -> TokenizerFiles | None:
    """The text encoder's tokenizer, or None and a warning where it cannot be had."""
    name = text.tokenizer_name
    if not name:
        _log.warning("%s: no tokenizer is known; name one by --set model.text.tokenizer=...", out)
        return None
    try:
        return fetch_tokenizer_files(name, text.revision)
    except ModelError as error:
        _log.warning("%s will name its tokenizer but not bring it along: %s", out, error)
        return None
