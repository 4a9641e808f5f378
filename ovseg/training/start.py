"""The model that a run starts from: its weights, and the sizes that they turned out to have."""

from pathlib import Path
from typing import Any

import torch

from ovseg.config.schema import ModelConfig, Recipe, TrainConfig
from ovseg.errors import UsageError
from ovseg.models.checkpoint import load_state, read_info
from ovseg.models.ovsegmentor.build import build_fitting, build_ovsegmentor
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.ovsegmentor.text_encoder import BertEncoder
from ovseg.models.tensor_files import read_tensors


def build_model(recipe: Recipe) -> OVSegmentor:
    """The model with its start weights, on the host; the same in every process."""
    torch.manual_seed(recipe.train.seed)
    contrastive = recipe.loss.contrastive
    if not recipe.train.start_from:
        return build_ovsegmentor(recipe.model, pretrained=True, contrastive=contrastive)
    path = start_path(recipe.train)
    info = read_info(path)
    if info.model_class != "OVSegmentor":
        raise UsageError(f"{path}: holds a {info.model_class}, which cannot be trained on")
    config = _sized_like(recipe.model, info.recipe.model)
    model = build_fitting(config, info.tensors, str(path), contrastive)
    load_state(model, read_tensors(path), str(path))
    return model


def start_path(config: TrainConfig) -> Path:
    """The checkpoint that `start_from` names: a file, or a run's folder."""
    path = Path(config.start_from)
    if path.is_dir():
        named = [path / name for name in ("best.safetensors", "last.safetensors")]
        return next((each for each in named if each.is_file()), named[0])
    return path


def _sized_like(model: ModelConfig, other: ModelConfig) -> ModelConfig:
    """With the text encoder's sizes from a checkpoint, so that nothing has to be fetched."""
    if model.text.has_sizes or not other.text.has_sizes:
        return model
    names = ("architecture", "width", "depth", "heads", "mlp_width", "vocab_size", "max_positions")
    sizes = {name: getattr(other.text, name) for name in names}
    return model.model_copy(update={"text": model.text.model_copy(update=sizes)})


def with_text_sizes(config: ModelConfig, model: OVSegmentor) -> ModelConfig:
    """The section with the sizes that its text encoder turned out to have, for checkpoints."""
    encoder = model.text_encoder
    if config.text.has_sizes or not isinstance(encoder, BertEncoder):
        return config
    found: Any = encoder.transformer.config
    sizes = {
        "architecture": found.model_type,
        "width": found.hidden_size,
        "depth": found.num_hidden_layers,
        "heads": found.num_attention_heads,
        "mlp_width": getattr(found, "intermediate_size", None) or found.hidden_dim,
        "vocab_size": found.vocab_size,
        "max_positions": found.max_position_embeddings,
    }
    return config.model_copy(update={"text": config.text.model_copy(update=sizes)})
