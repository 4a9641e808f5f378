"""The sections of aligned models: frozen towers, and a small part between them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ovseg.config.section import (
    Depth,
    Finite,
    Heads,
    NonNegative,
    Positive,
    Section,
    Width,
    require_division,
)

STARTER = "starter"  # the built-in network, in `tower`
TEXT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""The text tower where a recipe names none."""

Side = Annotated[int, Field(ge=1, le=8_192)]
_SIZES = ("width", "depth", "heads", "patch", "table")


class VisionTowerConfig(Section):
    """`[model.aligned.vision]`: the frozen tower that images are read by.

    `width` and the four sizes after it are optional, all or none: with them the tower has random
    weights, which a checkpoint then carries. Without them it comes by its name.
    """

    tower: str = STARTER
    """"starter", the built-in EfficientNet-Lite2, or a vision transformer of timm by name, such as
    "vit_base_patch14_reg4_dinov2.lvd142m"; NAME@FILE takes its weights from a file."""
    image_size: Side = 224
    """Side in pixels at which it is trained and read."""
    stages: tuple[Annotated[int, Field(ge=1, le=8)], ...] = (7,)
    """Of the built-in network: the stages whose outputs are the features, 1 to 7, and 8 for what
    its classifier reads; those of several are joined. 4 has 88 channels, 5 has 120, 7 has 352."""
    stride: Annotated[int, Field(ge=8, le=32)] = 16
    """Of the built-in network: pixels from one position to the next, 8, 16 or 32."""
    positions: Literal["auto", "antialiased", "enlarged", "bilinear"] = "auto"
    """How a transformer's learned positions reach another grid: see `ovseg.models.timm_tower`."""
    attention_scale: NonNegative = 0.0
    """What the class token's attention logits are multiplied by; 0 is one by the root of the width
    of a head. Talk2DINO has 0.125 whatever that width is."""
    width: Width | None = None
    """Width of tokens."""
    depth: Depth | None = None
    """Blocks."""
    heads: Heads | None = None
    """Attention heads of every block."""
    patch: Annotated[int, Field(ge=1, le=256)] | None = None
    """Side of a patch in pixels."""
    table: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """Rows and columns of the learned positions."""
    mlp_ratio: Positive = 4.0
    """Of a tower with random weights."""
    digest: str = ""
    """SHA-256 of the weights it was trained on, which others must not be mistaken for."""

    @property
    def has_sizes(self) -> bool:
        """Whether the tower has random weights."""
        return self.width is not None

    @model_validator(mode="after")
    def _fits_together(self) -> "VisionTowerConfig":
        absent = [name for name in _SIZES if getattr(self, name) is None]
        if absent and len(absent) < len(_SIZES):
            raise ValueError(f"sizes are given all or none: {', '.join(absent)} missing")
        if self.width is not None and self.heads is not None:
            require_division(self.width, self.heads, "width", "heads")
        if self.tower == STARTER and self.has_sizes:
            raise ValueError('tower "starter" has sizes of its own: name a transformer of timm')
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise ValueError("stages must hold at least one stage, and none twice")
        if self.stride not in (8, 16, 32):
            raise ValueError(f"stride must be 8, 16 or 32, not {self.stride}")
        return self


class ProjectionConfig(Section):
    """A projection of features into the shared space, on the text side or the positions'.

    `none` leaves them; `linear` is `W x + b`; `mlp` is `W2 a(W1 x + b1) + b2`; `residual` is
    `y + W2 a(W1 LN(y) + b1) + b2` with `y = W x + b`; `parallel` adds an MLP on `x` to it, whose
    second layer starts at zero; `gated` is `W3 (min(max(W1 x, 0), 6) * W2 x)` as in SAIL (Zhang et
    al., CVPR 2025).
    """

    form: Literal["none", "linear", "mlp", "residual", "parallel", "gated"] = "mlp"
    """Nothing, a linear map, an MLP, a linear map with an MLP behind or beside it, or gated."""
    hidden: Annotated[int, Field(ge=0, le=65_536)] = 0
    """Width between the layers; 0 is that of the result."""
    activation: Literal["tanh", "gelu", "relu"] = "gelu"
    """The function `a` between the layers."""
    unit: bool = False
    """Features are brought to length 1 first."""
    normalise: bool = False
    """LayerNorm on the features first."""
    dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Share of the hidden values that training leaves out."""


class LogitConfig(Section):
    """`[model.aligned.logits]`: from cosines to logits, `scale * cosine + offset + bias`."""

    scale: Positive = 1 / 0.07
    """Of the cosines; where it starts, if it is learned."""
    bias: Finite = 0.0
    """Added to them; where it starts, if it is learned."""
    learned: bool = False
    """Whether scale and bias are trained."""
    max_scale: Positive = 100.0
    """Upper bound of a learned scale."""
    separate: bool = False
    """Whether images and captions have scales of their own in training."""
    offset: bool = False
    """Learn how likely a word is wherever one looks: a vector whose product with the word's
    embedding is added."""


class ReadingConfig(Section):
    """`[model.aligned.reading]`: how images are labelled with the model."""

    maps: Literal["positions", "groups"] = "positions"
    """What is compared with the words."""
    rule: Literal["sigmoid", "softmax"] = "sigmoid"
    """A sigmoid for every word against a constant background, or a softmax over all words at each
    pixel, those of the background among them."""
    scale: NonNegative = 0.0
    """Of the cosines in front of either; 0 is that of the logits, with their bias if sigmoid."""
    prior: NonNegative = 0.0
    """How much the cosine of word and image counts at every position, where its own has 1."""
    mixing: Annotated[int, Field(ge=0, le=100)] = 0
    """How often positions are made means over those of like features; 0 leaves them."""
    sharpness: NonNegative = 6.0
    """What cosines of features are multiplied by before the softmax that mixes them."""
    background: tuple[str, ...] = ("background",)
    """Words that stand for whatever was not asked for, under the rule softmax."""
    clean: NonNegative = 0.0
    """Weight of the attention that Talk2DINO cleans backgrounds with (Barsellotti et al. 2024,
    section 3.3); 0 is none."""
    align_corners: bool = False
    """Whether maps are resized to a window with the outermost positions on its outermost pixels."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of the background."""
    short_side: Annotated[int, Field(ge=0, le=8_192)] = 0
    """Shorter side in pixels of an image; 0 is `vision.image_size`."""
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    """How it gets there: not antialiased, or antialiased as the photos of the training."""
    window: Annotated[int, Field(ge=0, le=8_192)] = 0
    """Side in pixels of sliding windows; 0 looks at the whole image at once."""
    stride: Annotated[int, Field(ge=0, le=8_192)] = 0
    """Pixels from one window to the next."""
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = (1.0,)
    """Sizes at which images are read, as multiples of `short_side`; their maps are averaged."""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """Prompts whose embeddings are averaged for a class."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ReadingConfig":
        if self.window and not 0 < self.stride <= self.window:
            raise ValueError(f"stride {self.stride} must be between 1 and window {self.window}")
        wrong = [text for text in self.templates if text.count("{}") != 1]
        if wrong or not self.templates:
            raise ValueError("templates must hold prompts with one {} for the class")
        if not self.scales:
            raise ValueError("scales must hold at least one size")
        if self.rule == "softmax" and (self.clean or self.maps == "groups"):
            raise ValueError('rule "softmax" goes with maps = "positions" and clean = 0')
        return self


class AlignedConfig(Section):
    """`[model.aligned]`: with this section the model is an aligned one.

    Its text tower is `[model.text]`. With `grouping`, `[model.image]` says what groups the tower's
    positions, and `[model.entity]` what completes entities.
    """

    vision: VisionTowerConfig = VisionTowerConfig()
    clip_projection: bool = False
    """Read a CLIP text tower behind its own projection."""
    text_digest: str = ""
    """SHA-256 of the text tower's weights, as `vision.digest`."""
    text_projection: ProjectionConfig = ProjectionConfig()
    position_projection: ProjectionConfig = ProjectionConfig(form="residual", normalise=True)
    image_projection: ProjectionConfig = ProjectionConfig(form="none")
    """Of the mean over the positions, to an embedding of the image; with the form `none` that is
    the mean of the positions' embeddings."""
    standardise: bool = False
    """Bring every channel of the positions to mean 0 and deviation 1, as over the training data."""
    grouping: bool = False
    """Whether the positions are grouped, as OVSegmentor does."""
    logits: LogitConfig = LogitConfig()
    reading: ReadingConfig = ReadingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "AlignedConfig":
        if self.reading.maps == "groups" and not self.grouping:
            raise ValueError('reading.maps = "groups" needs grouping = true')
        return self
