"""Aligned models of a few thousand weights, whose towers need no network."""

from pathlib import Path
from typing import Any

import torch

from ovseg.config.schema import ModelConfig, Recipe
from ovseg.models.aligned.aligned_model import AlignedModel, write_aligned
from ovseg.models.aligned.assembly import build_aligned
from ovseg.models.tokenizer import fetch_tokenizer_files
from tests.models.sizes import small_text

REGISTERS = "vit_small_patch14_reg4_dinov2"
ROTARY = "vit_small_patch16_dinov3"

TRANSFORMER: dict[str, Any] = {
    "tower": REGISTERS,
    "width": 24,
    "depth": 2,
    "heads": 3,
    "patch": 8,
    "table": 5,
    "mlp_ratio": 2.0,
    "image_size": 64,
}
"""A tower of random weights."""


def small_aligned(vision: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    """`[model]` of a tiny aligned model; `changes` are keys of `[model.aligned]`."""
    aligned = {"vision": {**TRANSFORMER, **(vision or {})}, **changes}
    values = {
        "embedding_width": 16,
        "projector_width": 32,
        "text": small_text(
            pooling="mean", tokenizer="bytes", vocab_size=261, max_positions=64, max_tokens=64
        ),
        "image": {
            "width": 32,
            "depths": (1, 1),
            "heads": 4,
            "group_tokens": 6,
            "groups": 3,
            "drop_path": 0.0,
        },
        "entity": {"heads": 4},
        "aligned": aligned,
    }
    return ModelConfig.model_validate(values)


def starter_vision(**changes: Any) -> dict[str, Any]:
    """`[model.aligned.vision]` of the built-in network, in place of `TRANSFORMER`."""
    nothing = dict.fromkeys(("width", "depth", "heads", "patch", "table"))
    return {**nothing, "tower": "starter", "image_size": 64, **changes}


def tiny_aligned(config: ModelConfig | None = None, seed: int = 0) -> AlignedModel:
    """Its modules, in evaluation mode, with random heads; the built-in network has its weights."""
    torch.manual_seed(seed)
    return build_aligned(config or small_aligned(), pretrained=True).eval()


def write_tiny(
    path: Path, config: ModelConfig | None = None, seed: int = 0, tokenizer: str = "bytes"
) -> Path:
    """A checkpoint of one, with a tokenizer unless its name is empty."""
    config = config or small_aligned()
    model = tiny_aligned(config, seed)
    write_aligned(
        path,
        model.head.state_dict(),
        Recipe(model=config),
        vision=model.vision,
        text=model.text,
        tokenizer=fetch_tokenizer_files(tokenizer) if tokenizer else None,
    )
    return path
