"""The sizes of a released checkpoint's model, from its tensors' shapes and stored configuration."""

import math
import re
from collections.abc import Mapping
from typing import Any

from ovseg.errors import ModelError
from ovseg.models.ovsegmentor.released import ReleasedCheckpoint

_STAGE = "img_encoder.layers"
_TEXT = "text_encoder.transformer"
_HEAD_WIDTH = 64  # of every published BERT, RoBERTa and DistilBERT
_BACKBONES = {384: "vit_small_patch16_224.dino", 768: "vit_base_patch16_224.dino"}
_ENCODERS = {
    ("bert", 768, 30_522): "bert-base-uncased",
    ("roberta", 768, 50_265): "roberta-base",
    ("distilbert", 768, 30_522): "distilbert-base-uncased",
}


def released_model_values(checkpoint: ReleasedCheckpoint) -> dict[str, Any]:
    """The `[model]` section that a released checkpoint's tensors fit, as a recipe's values.

    Raises:
        ModelError: a tensor that decides a size is missing, or the sizes contradict each other.
    """
    sizes = _Sizes(checkpoint)
    return {
        "embedding_width": sizes.at("img_projector.linear_out.weight", 0),
        "projector_width": sizes.at("img_projector.linear_hidden.0.weight", 0),
        "image": _image_values(sizes),
        "text": _text_values(sizes),
        # The reference accepts a padding mask in its entity decoder and does not apply it.
        "entity": {"mask_padding": False},
    }


class _Sizes:
    """Looks up shapes and stored values, and names the file where one is missing."""

    def __init__(self, checkpoint: ReleasedCheckpoint) -> None:
        self._checkpoint = checkpoint

    def at(self, name: str, axis: int) -> int:
        """Length of one axis of a tensor; negative axes count from the last."""
        shape = self._checkpoint.tensors[name].shape if self.has(name) else ()
        if not -len(shape) <= axis < len(shape):
            raise ModelError(f"{self._checkpoint.path}: {name} is missing or misshapen")
        return shape[axis]

    def has(self, name: str) -> bool:
        return name in self._checkpoint.tensors

    def count(self, pattern: str) -> int:
        """How many numbered parts there are: one more than the largest number in `pattern`."""
        found = (re.match(pattern, name) for name in self._checkpoint.tensors)
        return max((int(match[1]) + 1 for match in found if match), default=0)

    def stored(self, section: str, key: str) -> Any:
        """A value of the stored configuration, None where there is none."""
        value: Any = self._checkpoint.config
        for part in ("model", section, key):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def contradiction(self, message: str) -> ModelError:
        return ModelError(f"{self._checkpoint.path}: {message}")


def _image_values(sizes: _Sizes) -> dict[str, Any]:
    width = sizes.at("img_encoder.pos_embed", -1)
    patch = sizes.at("img_encoder.patch_embed.proj.weight", 2)
    side = math.isqrt(sizes.at("img_encoder.pos_embed", -2))
    if side * side != sizes.at("img_encoder.pos_embed", -2):
        raise sizes.contradiction("its grid of position embeddings is not square")
    return {
        "backbone": _BACKBONES.get(width, ""),
        "width": width,
        "depths": [sizes.count(rf"{_STAGE}\.{i}\.blocks\.(\d{{1,4}})\.") for i in (0, 1)],
        "heads": _heads(sizes),
        "patch": patch,
        "image_size": side * patch,
        "mlp_ratio": sizes.at(f"{_STAGE}.0.blocks.0.mlp.fc1.weight", 0) / width,
        "drop_path": _number(sizes.stored("img_encoder", "drop_path_rate"), 0.1),
        "group_tokens": sizes.at(f"{_STAGE}.0.group_token", -2),
        "groups": sizes.at(f"{_STAGE}.0.downsample.mlp_inter.fc2.weight", 0),
    }


def _heads(sizes: _Sizes) -> int:
    """Attention heads, which no shape tells; 8 where the file does not say either."""
    stored = sizes.stored("img_encoder", "num_heads")
    heads = stored if isinstance(stored, list) else [stored if stored else 8]
    if not heads or type(heads[0]) is not int or any(each != heads[0] for each in heads):
        raise sizes.contradiction(f"its stages have different numbers of heads: {stored}")
    return heads[0]


def _text_values(sizes: _Sizes) -> dict[str, Any]:
    architecture = _architecture(sizes)
    embeddings = f"{_TEXT}.embeddings"
    vocabulary = sizes.at(f"{embeddings}.word_embeddings.weight", 0)
    width = sizes.at(f"{embeddings}.word_embeddings.weight", 1)
    positions = sizes.at(f"{embeddings}.position_embeddings.weight", 0)
    layers, up = f"{_TEXT}.encoder.layer", "intermediate.dense"
    if architecture == "distilbert":
        layers, up = f"{_TEXT}.transformer.layer", "ffn.lin1"
    longest = sizes.stored("text_encoder", "context_length")
    return {
        "encoder": _ENCODERS.get((architecture, width, vocabulary), ""),
        "max_tokens": min(longest if isinstance(longest, int) else 77, positions),
        "architecture": architecture,
        "width": width,
        "depth": sizes.count(rf"{re.escape(layers)}\.(\d{{1,4}})\."),
        # No shape tells the heads; where the usual head width does not fit, a person must say.
        "heads": width // _HEAD_WIDTH if width % _HEAD_WIDTH == 0 else None,
        "mlp_width": sizes.at(f"{layers}.0.{up}.weight", 0),
        "vocab_size": vocabulary,
        "max_positions": positions,
    }


def _architecture(sizes: _Sizes) -> str:
    if sizes.has(f"{_TEXT}.transformer.layer.0.ffn.lin1.weight"):
        return "distilbert"
    return (
        "bert"
        if sizes.at(f"{_TEXT}.embeddings.token_type_embeddings.weight", 0) == 2
        else ("roberta")
    )


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default
