"""Building the model that a recipe describes; the only model code that reads the config."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ovseg.config.losses import ContrastiveLossConfig
from ovseg.config.schema import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from ovseg.errors import ModelError, RecipeError
from ovseg.models.checkpoint import check_shapes
from ovseg.models.ovsegmentor.backbone import backbone_weights, load_backbone
from ovseg.models.ovsegmentor.binding import ReleasedBinding, SlotBinding
from ovseg.models.ovsegmentor.entity_decoder import EntityDecoder
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from ovseg.models.ovsegmentor.network import OVSegmentor, Projector
from ovseg.models.ovsegmentor.text_encoder import (
    BertEncoder,
    ClipTextEncoder,
    TextEncoder,
    pretrained_clip_tower,
    pretrained_transformer,
    sized_transformer,
)
from ovseg.models.ovsegmentor.tower_encoder import clip_group_encoder, starter_group_encoder
from ovseg.models.tokenizer import CLIP_PREFIX
from ovseg.models.without_memory import without_memory

STARTER = "starter"  # the built-in network, in `model.image.init`


def build_ovsegmentor(
    config: ModelConfig,
    pretrained: bool = False,
    contrastive: ContrastiveLossConfig | None = None,
) -> OVSegmentor:
    """Build the modules of `[model]`.

    Args:
        config: the section.
        pretrained: fetch the start weights of both encoders, for training from scratch; False
            leaves them random, for a checkpoint to fill, and needs no network where the section
            carries the text encoder's sizes.
        contrastive: where the learned scale starts and ends; the paper's values by default.

    Raises:
        RecipeError: the parts do not fit together.
        ModelError: start weights are neither here nor reachable.
    """
    contrastive = contrastive or ContrastiveLossConfig()
    image_encoder = build_image_encoder(config.image, pretrained)
    text_encoder = build_text_encoder(config.text, pretrained)
    hidden, out = config.projector_width, config.embedding_width
    decoder = build_entity_decoder(config, text_encoder.width)
    return OVSegmentor(
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        image_projector=Projector(config.image.width, hidden, out),
        text_projector=Projector(text_encoder.width, hidden, out),
        bridge_projector=Projector(decoder.width, hidden, out),
        entity_decoder=decoder,
        initial_temperature=contrastive.initial_temperature,
        max_scale=contrastive.max_scale,
    )


def build_fitting(
    config: ModelConfig,
    shapes: Mapping[str, tuple[int, ...]],
    where: str,
    contrastive: ContrastiveLossConfig | None = None,
) -> OVSegmentor:
    """Build the modules that a file's tensors are the state of.

    Nothing is allocated before a model without memory has shown that the file holds what the
    section claims.

    Args:
        config, contrastive: as for `build_ovsegmentor`.
        shapes: of the file's tensors, by name.
        where: the file, for messages.

    Raises:
        ModelError: the file holds other tensors than the section's.
        RecipeError: the parts do not fit together.
    """
    text = config.text
    if not text.has_sizes and not text.encoder.startswith(CLIP_PREFIX):
        raise ModelError(
            f"{where}: does not tell the sizes of its text encoder {text.encoder}: set "
            "model.text.architecture and the sizes beside it, and write it again"
        )
    with without_memory():
        check_shapes(build_ovsegmentor(config), shapes, where)
    return build_ovsegmentor(config, contrastive=contrastive)


def build_image_encoder(config: ImageEncoderConfig, pretrained: bool = False) -> ImageEncoder:
    """Build `[model.image]`, from the weights of `backbone` or `init` if `pretrained`."""
    sizes = encoder_sizes(config)
    if config.init == STARTER:
        return starter_group_encoder(
            config.init_frozen, build_binding(config), pretrained, patch=config.patch, **sizes
        )
    if config.init:
        return clip_group_encoder(
            config.init, config.init_frozen, build_binding(config), pretrained, **sizes
        )
    encoder = ImageEncoder(build_binding(config), patch=config.patch, **sizes)
    if pretrained and config.backbone:
        load_backbone(encoder, backbone_weights(config.backbone))
    return encoder


def encoder_sizes(config: ImageEncoderConfig) -> dict[str, Any]:
    """What `ImageEncoder` takes of `[model.image]`, but for its patch."""
    return {
        "width": config.width,
        "depths": config.depths,
        "heads": config.heads,
        "image_size": config.image_size,
        "group_tokens": config.group_tokens,
        "mlp_ratio": config.mlp_ratio,
        "drop_path": config.drop_path,
        "norm_eps": config.norm_eps,
        "checkpointing": config.checkpointing,
    }


def build_text_encoder(
    config: TextEncoderConfig, pretrained: bool = False, projected: bool = False
) -> TextEncoder:
    """Build `[model.text]`, with the weights that `encoder` names if `pretrained`.

    Args:
        projected: read a CLIP tower behind its own projection.
    """
    if config.encoder.startswith(CLIP_PREFIX):
        architecture, _, tag = config.encoder.removeprefix(CLIP_PREFIX).partition("/")
        return ClipTextEncoder(
            pretrained_clip_tower(architecture, tag if pretrained else "", projected)
        )
    return BertEncoder(_transformer(config, pretrained), config.pooling)


def build_binding(config: ImageEncoderConfig) -> ReleasedBinding | SlotBinding:
    """The binding module of `[model.image]`."""
    if config.binding == "released":
        return ReleasedBinding(
            width=config.width,
            heads=config.heads,
            tokens=config.group_tokens,
            groups=config.groups,
            mlp_ratio=config.mlp_ratio,
            norm_eps=config.norm_eps,
        )
    return SlotBinding(
        width=config.width,
        tokens=config.group_tokens,
        groups=config.groups,
        iterations=config.slot_iterations,
        gru=config.slot_gru,
        mlp_ratio=config.mlp_ratio,
        norm_eps=config.norm_eps,
    )


def _transformer(config: TextEncoderConfig, pretrained: bool) -> nn.Module:
    """Of explicit sizes where they are given and no weights wanted, else by name."""
    named = bool(config.encoder)
    if config.architecture is None or (pretrained and named):
        return pretrained_transformer(config.encoder, config.revision)
    # The schema gives the sizes all or none.
    sizes = (config.width, config.depth, config.heads)
    more = (config.mlp_width, config.vocab_size, config.max_positions)
    width, depth, heads = (size or 0 for size in sizes)
    mlp_width, vocab_size, max_positions = (size or 0 for size in more)
    return sized_transformer(
        config.architecture,
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=mlp_width,
        vocab_size=vocab_size,
        max_positions=max_positions,
    )


def build_entity_decoder(config: ModelConfig, text_width: int) -> EntityDecoder:
    """Build `[model.entity]` between images and texts of width E."""
    heads = config.entity.heads
    width = min(config.image.width, text_width)
    if width % heads:
        raise RecipeError(
            f"model.entity.heads {heads} does not divide the decoder's width {width}, the smaller "
            f"of the image encoder's {config.image.width} and the text encoder's {text_width}"
        )
    return EntityDecoder(
        image_width=config.image.width,
        text_width=text_width,
        heads=heads,
        mlp_ratio=config.image.mlp_ratio,
        norm_eps=config.image.norm_eps,
        mask_padding=config.entity.mask_padding,
    )
