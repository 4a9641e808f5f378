"""From a released checkpoint to one of ours.

Letters: N patch, T group token, D width, F entity decoder width.

A released checkpoint is the reference implementation's state: the trained modules, the momentum
twin of the image encoder, and a few parameters that nothing reads.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.config.load import recipe_from_values
from ovseg.config.schema import Recipe, TextEncoderConfig
from ovseg.errors import ModelError, UsageError
from ovseg.models.checkpoint import load_state, shapes_of, write_checkpoint
from ovseg.models.ovsegmentor.released import released_checkpoint
from ovseg.models.ovsegmentor.released_config import released_model_values
from ovseg.models.tokenizer import TokenizerFiles, fetch_tokenizer_files
from ovseg.models.torch_file import TorchFile

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

MOMENTUM_PREFIX = "img_encoder_momentum."

# Parts of the reference's names and ours, applied in this order.
_ATTENTION = [
    (r"\.pre_assign_attn\.norm_post\.", ".cross.norm_out."),
    (r"\.pre_assign_attn\.norm2\.", ".cross.norm_mlp."),
    (r"\.pre_assign_attn\.attn\.", ".cross.attention."),
    (r"\.pre_assign_attn\.", ".cross."),
    (r"\.assign\.", "."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"(binding|cross\.attention)\.proj\.", r"\1.out."),
]
_IMAGE_ENCODER = [
    (r"^img_encoder\.", "image_encoder."),
    (r"\.pos_embed$", ".position"),
    (r"\.layers\.0\.group_token$", ".group_tokens"),
    (r"\.layers\.0\.blocks\.", ".stage1."),
    (r"\.layers\.1\.blocks\.", ".stage2."),
    (r"\.layers\.0\.downsample\.", ".binding."),
    (r"\.binding\.mlp_inter\.", ".binding.mixer.mlp."),
    (r"\.binding\.norm_post_tokens\.", ".binding.mixer.norm."),
    (r"\.binding\.norm_x\.", ".binding.norm_patches."),
    (r"\.binding\.norm_new_x\.", ".binding.norm_mlp."),
    (r"\.binding\.mlp_channels\.", ".binding.mlp."),
    *_ATTENTION,
]
_PROJECTORS = [
    (r"^img_projector\.", "image_projector."),
    (r"\.linear_hidden\.0\.", ".hidden."),
    (r"\.linear_hidden\.1\.", ".norm."),
    (r"\.linear_out\.", ".out."),
]
_ENTITY_DECODER = [
    (r"^align_proj_img\.", "entity_decoder.align_image."),
    (r"^align_proj_text\.", "entity_decoder.align_text."),
    (r"^multimodal_groupingblock\.blocks\.0\.", "entity_decoder."),
    (r"\.norm_x\.", ".norm_groups."),
    (r"\.norm_new_x\.", ".norm_out."),
    (r"\.post_attn\.", ".block."),
    *_ATTENTION,
]
_RULES = {
    "img_encoder.": _IMAGE_ENCODER,
    "img_projector.": _PROJECTORS,
    "text_projector.": _PROJECTORS,
    "bridge_projector.": _PROJECTORS,
    "align_proj_": _ENTITY_DECODER,
    "multimodal_groupingblock.": _ENTITY_DECODER,
}
# Parameters that the reference stores and never reads.
_UNREAD = re.compile(
    r"^logit_scale_mask$"
    r"|^multimodal_groupingblock\.blocks\.\d+\.assign\."
    r"|^text_encoder\.transformer\.pooler\."
    r"|^text_encoder\.transformer\.embeddings\.(position|token_type)_ids$"
)


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

    @staticmethod
    def of(state: "Mapping[str, Tensor]", has_tokenizer: bool, content_hash: str) -> "Conversion":
        """Of the tensors that the new file holds."""
        parameters = sum(tensor.numel() for tensor in state.values())
        return Conversion(len(state), parameters, has_tokenizer, content_hash)


def convert_checkpoint(file: TorchFile, out: Path, overrides: Sequence[str] = ()) -> Conversion:
    """Turn a released checkpoint of OVSegmentor into a safetensors file of ours.

    Args:
        file: the released `.pth`.
        out: the file to write.
        overrides: `model.section.key=value` for what the file does not tell, or tells wrongly.

    Raises:
        ModelError: the file is refused, damaged, or fits no model of ours.
        UsageError: the file does not tell a size, or sizes and overrides contradict each other.
    """
    released, source = released_checkpoint(file), file.path
    from ovseg.models.ovsegmentor.build import build_fitting

    recipe = _recipe({"model": released_model_values(released)}, source, overrides)
    tensors = released_to_ours(released.tensors)
    model = build_fitting(recipe.model, shapes_of(tensors), str(source))
    load_state(model, tensors, str(source))
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
    return Conversion.of(state, tokenizer is not None, content_hash)


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


def our_key(key: str) -> str | None:
    """Our name for a parameter of the reference; None for one that nothing reads.

    A name that is not known comes back as it is, so that strict loading reports it.
    """
    if _UNREAD.match(key):
        return None
    for prefix, rules in _RULES.items():
        if key.startswith(prefix):
            for pattern, replacement in rules:
                key = re.sub(pattern, replacement, key)
            break
    return key


def released_to_ours(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename and reshape the `model` part of a released checkpoint into `OVSegmentor`'s state.

    The momentum encoder is left out: training starts its own.
    """
    ours = {}
    for key, tensor in state.items():
        if key.startswith(MOMENTUM_PREFIX):
            continue
        name = our_key(key)
        if name is not None:
            ours[name] = _our_shape(name, tensor)
    return ours | _missing_alignment(ours)


def _our_shape(name: str, tensor: "Tensor") -> "Tensor":
    """Width-1 convolutions become linear layers; leading axes of one are dropped."""
    if name.endswith(("projector.hidden.weight", "projector.out.weight")) and tensor.ndim == 3:
        return tensor.squeeze(-1)
    if name.endswith((".position", ".group_tokens")) and tensor.ndim == 3:
        return tensor.squeeze(0)
    return tensor


def _missing_alignment(ours: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """An identity for the image side where both widths agree and the file has no layer for it."""
    import torch

    norm = ours.get("entity_decoder.norm_groups.weight")
    width = ours.get("image_encoder.norm.weight")
    aligned = any(name.startswith("entity_decoder.align_") for name in ours)
    if norm is None or width is None or aligned or norm.shape != width.shape:
        return {}
    return {
        "entity_decoder.align_image.weight": torch.eye(len(norm), dtype=norm.dtype),
        "entity_decoder.align_image.bias": torch.zeros(len(norm), dtype=norm.dtype),
    }
