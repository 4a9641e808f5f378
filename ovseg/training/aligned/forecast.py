"""What training an aligned model will cost: operations, memory, space for features."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ovseg.config.schema import Recipe
from ovseg.models.aligned.assembly import build_aligned
from ovseg.training.aligned.features import CacheNeed, Features, features_of


@dataclass(frozen=True)
class Forecast:
    """Attributes:
    parameters, trained: numbers in towers and head, and in the head.
    head_flops: of a photo with its captions in a step.
    tower_flops: of all views that are still to be encoded.
    memory: bytes on the device, an estimate.
    cache: space for features.
    """

    parameters: int
    trained: int
    head_flops: float
    tower_flops: float
    memory: int
    cache: CacheNeed


def forecast(recipe: Recipe) -> Forecast:
    """Count what a run would do; loads the towers, whose weights name the features."""
    torch.manual_seed(recipe.train.seed)
    model = build_aligned(recipe.model, pretrained=True)
    features = features_of(recipe, model, torch.device("cpu"))
    need = features.need()
    one_view = _tower_flops(features) if need.photos else 0.0
    trained = count(model.head)
    return Forecast(
        parameters=count(model),
        trained=trained,
        head_flops=3 * _head_flops(features),
        tower_flops=one_view * need.photos,
        memory=4 * count(model) + 12 * trained + _batch_bytes(features),
        cache=need,
    )


def count(module: nn.Module) -> int:
    """Numbers in a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def _tower_flops(features: Features) -> float:
    aligned = features.recipe.model.aligned
    assert aligned is not None
    side = aligned.vision.image_size
    with FlopCounterMode(display=False) as counter:
        features.model.vision.features(torch.zeros(1, 3, side, side))
    return float(counter.get_total_flops())


@torch.no_grad()
def _head_flops(features: Features) -> float:
    """Of a photo's positions or heads, and a caption, forward."""
    head, vision = features.model.head, features.model.vision
    rows, columns = features.grid
    vectors = torch.zeros(1, _vectors(features), vision.width)
    sentence: Tensor = torch.zeros(1, features.model.text.width)
    with FlopCounterMode(display=False) as counter:
        head.embed_positions(vectors)
        head.embed_text_features(sentence)
        if head.grouping is not None:
            head.eval().group(vectors, (rows, columns))
    return float(counter.get_total_flops())


def _vectors(features: Features) -> int:
    rows, columns = features.grid
    return rows * columns if "tokens" in features.photo_fields else features.model.vision.heads


def _batch_bytes(features: Features) -> int:
    """Features of a batch, and some six times its embeddings for the backward pass."""
    recipe = features.recipe
    width = features.model.vision.width + 6 * recipe.model.embedding_width
    return 4 * recipe.data.batch_size * _vectors(features) * width
