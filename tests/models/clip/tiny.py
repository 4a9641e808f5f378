"""CLIP models of a few thousand weights, on disk in the forms that real ones come in."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ovseg.models.clip.weights import build

TINY: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
    },
}
"""A ViT with a 4 x 4 grid; the vocabulary is CLIP's own, since its tokenizer is."""


def tiny_clip(seed: int = 0, **changes: Any) -> Any:
    """An open_clip model with random weights."""
    torch.manual_seed(seed)
    model = build({**TINY, **changes})
    return model.eval().requires_grad_(False)


def write_folder(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A folder as open_clip uploads it."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "model_cfg": {**TINY, **changes},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    state = {k: v.contiguous() for k, v in tiny_clip(seed, **changes).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
