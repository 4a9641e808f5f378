"""The schema of a recipe: every key, its type, range and default.

The defaults are stage 1 of the paper's training (Xu et al., CVPR 2023, section 4.1 and appendix):
ViT-B/16 with DINO start weights and BERT-base on CC4M. A recipe writes down only what differs.
All of it is frozen: a run cannot change its own recipe.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ovseg.config.aligned import TEXT_ENCODER, AlignedConfig
from ovseg.config.section import (
    Count,
    Depth,
    Heads,
    NonNegative,
    Positive,
    Section,
    Share,
    Width,
    require_division,
)


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
    heads: Heads = 8
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
    heads: Heads | None = None
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

    heads: Heads = 8
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
    aligned: AlignedConfig | None = None
    """Makes the model an aligned one, of frozen towers."""

    @model_validator(mode="before")
    @classmethod
    def _aligned_text(cls, values: Any) -> Any:
        """The text tower of aligned models, where the section names none."""
        if not isinstance(values, dict) or values.get("aligned") is None:
            return values
        text = values.get("text", {})
        if not isinstance(text, dict) or "encoder" in text:
            return values
        return {**values, "text": {"encoder": TEXT_ENCODER, "pooling": "mean", **text}}

    @model_validator(mode="after")
    def _fits_together(self) -> "ModelConfig":
        grouped = self.aligned is None or self.aligned.grouping
        if self.text.width is not None and grouped:
            shared = min(self.image.width, self.text.width)
            require_division(shared, self.entity.heads, "the entity decoder's width", "heads")
        return self


class ContrastiveLossConfig(Section):
    """`[loss.contrastive]`: image-caption contrast (equation 4 of the paper)."""

    enabled: bool = True
    weight: NonNegative = 1.0
    initial_temperature: Positive = 0.07
    max_scale: Positive = 100.0
    """Upper bound of the learned scale, after its exponential."""


class EntityLossConfig(Section):
    """`[loss.entity]`: masked entity completion."""

    enabled: bool = True
    weight: NonNegative = 1.0


class MaskLossConfig(Section):
    """`[loss.mask]`: cross-image mask consistency, of the second stage."""

    enabled: bool = False
    weight: NonNegative = 0.1
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """A target pixel is on above this share of its mask's maximum."""
    trained_groups: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the groups, those nearest to the shared entity, that receive a gradient."""
    smoothing: Positive = 1.0
    """Added to numerator and denominator of the Dice loss."""
    resolution: Annotated[int, Field(ge=1, le=2_048)] = 224
    """Side in pixels at which masks are matched and compared."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of its old weights that the momentum encoder keeps per step."""


class LossConfig(Section):
    """`[loss]`: which losses train the model, and their weights in the sum."""

    contrastive: ContrastiveLossConfig = ContrastiveLossConfig()
    entity: EntityLossConfig = EntityLossConfig()
    mask: MaskLossConfig = MaskLossConfig()

    @model_validator(mode="after")
    def _something_to_learn(self) -> "LossConfig":
        parts = (self.contrastive, self.entity, self.mask)
        if not any(part.enabled and part.weight > 0 for part in parts):
            raise ValueError("no loss is enabled with a weight above 0")
        return self


class OptimizerConfig(Section):
    """`[optimizer]`: AdamW. Biases and one-dimensional tensors are not decayed."""

    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.05
    clip_norm: NonNegative = 5.0
    """Largest gradient norm; 0 does not clip."""
    tower_rate: Positive = 1.0
    """Learning rate of the tower that `model.image.init` names, relative to everything else's."""


class ScheduleConfig(Section):
    """`[schedule]`: linear warm-up, then cosine, per step.

    The three rates hold at a global batch of `reference_batch` and are scaled linearly with it.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    max_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps after which training ends, schedule included; 0 leaves it to `epochs`."""
    learning_rate: Positive = 6.4e-4
    min_learning_rate: NonNegative = 1.6e-4
    warmup_learning_rate: NonNegative = 1.6e-5
    warmup_epochs: NonNegative = 2.0
    reference_batch: Count = 4096

    @model_validator(mode="after")
    def _fits_together(self) -> "ScheduleConfig":
        if self.min_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate is above learning_rate")
        if self.warmup_learning_rate > self.learning_rate:
            raise ValueError("warmup_learning_rate is above learning_rate")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} leaves none of {self.epochs}")
        return self


class DataConfig(Section):
    """`[data]`: where the pairs come from and how they are batched."""

    shards: tuple[str, ...] = ()
    """Folders of `ovseg build-dataset`, or webdataset shards; braces such as {000..431} expand."""
    batch_size: Count = 256
    """Pairs per device and step, before accumulation."""
    accumulation: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Parts of which one contrastive batch is made; memory is that of one part."""
    workers: Annotated[int, Field(ge=0, le=1_024)] = 8
    """Loader processes per device; 0 loads in the training process."""
    partners: Literal["none", "exact", "in-batch"] = "none"
    """Where cross images come from: the index's sampled partners, or the same batch."""
    max_bad_samples: Count = 100
    """Unreadable samples in a row that stop the run."""


class AugmentationConfig(Section):
    """`[augmentation]`: the training transform of images."""

    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    """Share of the image's area that a crop covers, at least and at most."""
    crop_ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Width by height of a crop before it is resized, at least and at most."""
    flip: Share = 0.5
    color_jitter: Share = 0.4
    """Brightness, contrast and saturation vary by up to this share; unused with `rand_augment`."""
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    """Policy in timm's notation; "" is none."""
    erasing: Share = 0.25
    """Probability that a rectangle is replaced."""
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"

    @model_validator(mode="after")
    def _fits_together(self) -> "AugmentationConfig":
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must hold 0 < low <= high, not [{low:g}, {high:g}]")
        return self


class TrainConfig(Section):
    """`[train]`: how the run goes and what it leaves behind."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    start_from: str = ""
    """Checkpoint whose weights training starts from; "" takes those of `backbone` and `encoder`."""
    freeze_text: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Precision of the networks' matrix products; losses are computed in fp32."""
    compile: bool = False
    log_every: Count = 20
    """Steps between lines of the log."""
    save_every: Annotated[int, Field(ge=0)] = 1000
    """Steps between checkpoints, beside the one of each epoch; 0 keeps to epochs."""
    keep_last: Count = 2
    overlays_every: Annotated[int, Field(ge=0)] = 1000
    """Steps between overlays of a few fixed images; 0 draws none."""
    tracker: Literal["none", "tensorboard", "wandb"] = "tensorboard"
    evaluate_on: str = ""
    """Data set of `ovseg eval` scored after each epoch, such as "voc"; "" is none."""
    max_skipped: Annotated[int, Field(ge=1)] = 20
    """Steps in a row with a loss or gradient that is not finite, before the run stops."""


class Recipe(Section):
    """One training run, whole: what a recipe file and its overrides amount to."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if self.loss.mask.enabled and self.data.partners == "none":
            raise ValueError(
                'loss.mask needs cross images: set data.partners to "exact" or "in-batch"'
            )
        return self
