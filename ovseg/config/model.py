"""`[model]` of a recipe: the sizes and variants of the network.

The defaults are the model of the paper (Xu et al., CVPR 2023, section 4.1 and appendix): ViT-B/16
with DINO start weights and BERT-base.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ovseg.config.section import Depth, Section, Width, require_division


class ImageEncoderConfig(Section):
    """`[model.image]`: the image encoder with its group tokens (section 3.1 of the paper)."""

    backbone: str = "vit_base_patch16_224.dino"
    """timm name of the start weights; "" starts from random ones."""
    init: str = ""
    """Tower to group, whose features replace the patches: "starter", the built-in network, which
    needs no download, or a CLIP tower, as "clip:ViT-B-16/openai"."""
    init_frozen: bool = True
    """Whether the tower of `init` stays as it is, so that the grouping alone is trained."""
    width: Width = 768
    depths: tuple[Depth, Depth] = (6, 6)
    """Blocks before the binding module (patches and group tokens) and after it (groups)."""
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    """Attention heads of every block. DINO's own is 12."""
    patch: Annotated[int, Field(ge=1, le=256)] = 16
    """Side of a patch in pixels; with the tower "starter" its stride, 8 or 16."""
    image_size: Annotated[int, Field(ge=1, le=8_192)] = 224
    """Side in pixels of the training images, which fixes the grid of position embeddings."""
    mlp_ratio: Annotated[float, Field(gt=0, le=64, allow_inf_nan=False)] = 4.0
    drop_path: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    """Stochastic depth of the last block; it rises linearly from 0."""
    norm_eps: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1e-5
    group_tokens: Annotated[int, Field(ge=1, le=4_096)] = 64
    groups: Annotated[int, Field(ge=1, le=4_096)] = 8
    binding: Literal["released", "slot"] = "released"
    """Binding module: the one pass of the published weights, or slot attention as in the paper."""
    slot_iterations: Annotated[int, Field(ge=1, le=100)] = 3
    slot_gru: bool = True
    """Refine the slots by a GRU, as Locatello et al. (2020); else by a residual sum."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ImageEncoderConfig":
        require_division(self.width, self.heads, "width", "heads")
        require_division(self.image_size, self.patch, "image_size", "patch")
        return self


_TEXT_SIZES = (
    "architecture",
    "width",
    "depth",
    "heads",
    "mlp_width",
    "vocab_size",
    "max_positions",
)


class TextEncoderConfig(Section):
    """`[model.text]`: the text encoder.

    `architecture` and the six sizes after it are optional, all or none: with them the encoder is
    built without asking the network what `encoder` looks like. Checkpoints carry them.
    """

    encoder: str = "bert-base-uncased"
    """Hub name, local folder, "clip:ARCH/PRETRAINED" through open_clip; "" is random weights."""
    revision: str = "main"
    tokenizer: str = ""
    """Hub name or folder of the tokenizer, or "bytes", which needs no file; "" is the encoder's."""
    pooling: Literal["first", "mean"] = "first"
    """Sentence feature: the first token's, or the mean over the tokens that are no padding."""
    max_tokens: Annotated[int, Field(ge=2, le=8_192)] = 77
    architecture: Literal["bert", "roberta", "distilbert"] | None = None
    width: Width | None = None
    depth: Depth | None = None
    heads: Annotated[int, Field(ge=1, le=256)] | None = None
    mlp_width: Annotated[int, Field(ge=1, le=65_536)] | None = None
    vocab_size: Annotated[int, Field(ge=1, le=2_000_000)] | None = None
    max_positions: Annotated[int, Field(ge=1, le=65_536)] | None = None

    @property
    def tokenizer_name(self) -> str:
        """Where the tokenizer comes from; an empty string where nobody said."""
        return self.tokenizer or self.encoder

    @property
    def has_sizes(self) -> bool:
        """Whether the encoder can be built from this section alone."""
        return self.architecture is not None

    @model_validator(mode="after")
    def _fits_together(self) -> "TextEncoderConfig":
        absent = [name for name in _TEXT_SIZES if getattr(self, name) is None]
        if absent and len(absent) < len(_TEXT_SIZES):
            raise ValueError(f"sizes are given all or none: {', '.join(absent)} missing")
        if not self.encoder and absent:
            raise ValueError(f'encoder "" (random weights) needs sizes: {", ".join(absent)}')
        if self.width is not None and self.heads is not None:
            require_division(self.width, self.heads, "width", "heads")
        if self.max_positions is not None and self.max_tokens > self.max_positions:
            raise ValueError(f"max_tokens {self.max_tokens} > max_positions {self.max_positions}")
        return self


class EntityDecoderConfig(Section):
    """`[model.entity]`: the decoder of masked entity completion (section 3.2 of the paper)."""

    heads: Annotated[int, Field(ge=1, le=256)] = 8
    mask_padding: bool = True
    """Keep attention off padding tokens. The published weights were trained without this."""


class ModelConfig(Section):
    """`[model]`: everything that decides the shapes and the computation of the network."""

    embedding_width: Width = 256
    """Width of the space that images and texts share."""
    projector_width: Annotated[int, Field(ge=1, le=65_536)] = 4096
    image: ImageEncoderConfig = ImageEncoderConfig()
    text: TextEncoderConfig = TextEncoderConfig()
    entity: EntityDecoderConfig = EntityDecoderConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "ModelConfig":
        if self.text.width is not None:
            shared = min(self.image.width, self.text.width)
            require_division(shared, self.entity.heads, "the entity decoder's width", "heads")
        return self
