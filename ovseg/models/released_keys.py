"""Where each tensor of a released checkpoint belongs in our modules.

Letters: N patch, T group token, D width, F entity decoder width.

A released checkpoint is the reference implementation's state: the trained modules, the momentum
twin of the image encoder, and a few parameters that nothing reads.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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


def released_to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reshape the `model` part of a released checkpoint into `OVSegmentor`'s state.

    The momentum encoder is left out: see `released_momentum`.
    """
    ours = {}
    for key, tensor in state.items():
        if key.startswith(MOMENTUM_PREFIX):
            continue
        name = our_key(key)
        if name is not None:
            ours[name] = _our_shape(name, tensor)
    return ours | _missing_alignment(ours)


def released_momentum(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The momentum encoder of a released checkpoint as `ImageEncoder`'s state; may be empty."""
    online = {
        key.replace(MOMENTUM_PREFIX, "img_encoder.", 1): tensor
        for key, tensor in state.items()
        if key.startswith(MOMENTUM_PREFIX)
    }
    return {
        key.removeprefix("image_encoder."): tensor
        for key, tensor in released_to_ours(online).items()
    }


def _our_shape(name: str, tensor: Tensor) -> Tensor:
    """Width-1 convolutions become linear layers; leading axes of one are dropped."""
    if name.endswith(("projector.hidden.weight", "projector.out.weight")) and tensor.ndim == 3:
        return tensor.squeeze(-1)
    if name.endswith((".position", ".group_tokens")) and tensor.ndim == 3:
        return tensor.squeeze(0)
    return tensor


def _missing_alignment(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An identity for the image side where both widths agree and the file has no layer for it."""
    norm = ours.get("entity_decoder.norm_groups.weight")
    width = ours.get("image_encoder.norm.weight")
    aligned = any(name.startswith("entity_decoder.align_") for name in ours)
    if norm is None or width is None or aligned or norm.shape != width.shape:
        return {}
    return {
        "entity_decoder.align_image.weight": torch.eye(len(norm), dtype=norm.dtype),
        "entity_decoder.align_image.bias": torch.zeros(len(norm), dtype=norm.dtype),
    }
