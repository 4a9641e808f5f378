"""The schema of a recipe: every key, its type, range and default.

The defaults are stage 1 of the paper's training (Xu et al., CVPR 2023, section 4.1 and appendix):
ViT-B/16 with DINO start weights and BERT-base on CC4M. A recipe writes down only what differs.
All of it is frozen: a run cannot change its own recipe.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ovseg.config.aligned import TEXT_ENCODER, AlignedConfig
from ovseg.config.losses import LossConfig
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
    """Width of tokens."""
    depths: tuple[Depth, Depth] = (6, 6)
    """Blocks before the binding module (patches and group tokens) and after it (groups)."""
    heads: Heads = 8
    """Attention heads of every block. DINO's own is 12."""
    patch: Annotated[int, Field(ge=1, le=256)] = 16
    """Side of a patch in pixels; with the tower "starter" its stride, 8 or 16."""
    image_size: Annotated[int, Field(ge=1, le=8_192)] = 224
    """Side in pixels of the training images, which fixes the grid of position embeddings."""
    mlp_ratio: Annotated[float, Field(gt=0, le=64, allow_inf_nan=False)] = 4.0
    """Width of a block's MLP, as a multiple of `width`."""
    drop_path: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    """Stochastic depth of the last block; it rises linearly from 0."""
    norm_eps: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1e-5
    """Added to the variance in layer norms."""
    group_tokens: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Learned tokens that the first blocks see beside the patches."""
    groups: Annotated[int, Field(ge=1, le=4_096)] = 8
    """Groups that an image is divided into."""
    binding: Literal["released", "slot"] = "released"
    """Binding module: the one pass of the published weights, or slot attention as in the paper."""
    slot_iterations: Annotated[int, Field(ge=1, le=100)] = 3
    """Rounds of slot attention, with `binding` slot."""
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
    """Of the hub: a branch, a tag or a commit."""
    tokenizer: str = ""
    """Hub name or folder of the tokenizer, or "bytes", which needs no file; "" is the encoder's."""
    pooling: Literal["first", "mean"] = "first"
    """Sentence feature: the first token's, or the mean over the tokens that are no padding."""
    max_tokens: Annotated[int, Field(ge=2, le=8_192)] = 77
    """Longer captions are cut."""
    architecture: Literal["bert", "roberta", "distilbert"] | None = None
    """Of the encoder that the sizes below are of."""
    width: Width | None = None
    """Width of tokens."""
    depth: Depth | None = None
    """Blocks."""
    heads: Heads | None = None
    """Attention heads of every block."""
    mlp_width: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Width of a block's MLP."""
    vocab_size: Annotated[int, Field(ge=1, le=2_000_000)] | None = None
    """Tokens that there are."""
    max_positions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Position embeddings that there are."""

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
    """Attention heads."""
    mask_padding: bool = True
    """Keep attention off padding tokens. The published weights were trained without this."""


class ModelConfig(Section):
    """`[model]`: everything that decides the shapes and the computation of the network."""

    embedding_width: Width = 256
    """Width of the space that images and texts share."""
    projector_width: Annotated[int, Field(ge=1, le=65_536)] = 4096
    """Width of the hidden layer of the projectors into that space."""
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


class OptimizerConfig(Section):
    """`[optimizer]`: AdamW. Biases and one-dimensional tensors are not decayed."""

    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    """Decay of the means of gradients and of their squares."""
    eps: Positive = 1e-8
    """Added to the gradients' root mean square."""
    weight_decay: NonNegative = 0.05
    """Per step and unit of learning rate."""
    clip_norm: NonNegative = 5.0
    """Largest gradient norm; 0 does not clip."""
    tower_rate: Positive = 1.0
    """Learning rate of the tower that `model.image.init` names, relative to everything else's."""


class ScheduleConfig(Section):
    """`[schedule]`: linear warm-up, then cosine, per step.

    The three rates hold at a global batch of `reference_batch` and are scaled linearly with it.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Passes over the data."""
    max_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps after which training ends, schedule included; 0 leaves it to `epochs`."""
    learning_rate: Positive = 6.4e-4
    """After the warm-up."""
    min_learning_rate: NonNegative = 1.6e-4
    """At the end."""
    warmup_learning_rate: NonNegative = 1.6e-5
    """At the beginning."""
    warmup_epochs: NonNegative = 2.0
    """Epochs until `learning_rate` is reached."""
    reference_batch: Count = 4096
    """Global batch at which the rates hold as written."""

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
    held_out: Annotated[int, Field(ge=0)] = 0
    """Photos kept out of training, the first by the hashes of their names."""
    photos: Annotated[int, Field(ge=0)] = 0
    """Photos to train on, the next by their hashes; 0 takes all."""
    captions: Literal["pairs", "one", "all"] = "pairs"
    """What a step draws, with an aligned model: pairs of a photo and a caption; photos, with one
    caption drawn; or photos with all their captions."""
    views: Annotated[int, Field(ge=1, le=256)] = 1
    """Of each photo, with an aligned model: its middle, and augmented ones beside it."""
    positions: Annotated[int, Field(ge=0)] = 0
    """Of each view that a step looks at, drawn anew, with an aligned model; 0 takes all."""
    view_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the augmented views, which several runs share."""
    cache: str = ""
    """Folder of the features of frozen towers; "" is in ovseg's own cache."""


class AugmentationConfig(Section):
    """`[augmentation]`: the training transform of images."""

    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    """Share of the image's area that a crop covers, at least and at most."""
    crop_ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Width by height of a crop before it is resized, at least and at most."""
    flip: Share = 0.5
    """Share of images that are mirrored."""
    color_jitter: Share = 0.4
    """Brightness, contrast and saturation vary by up to this share; unused with `rand_augment`."""
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    """Policy in timm's notation; "" is none."""
    erasing: Share = 0.25
    """Probability that a rectangle is replaced."""
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    """What erased pixels become: one colour, a random one, or noise."""
    text_noise: NonNegative = 0.0
    """With an aligned model: noise on the features of texts, as a share of their length."""

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
    """Of start weights, batches, augmentation and noise."""
    start_from: str = ""
    """Checkpoint whose weights training starts from; "" takes those of `backbone` and `encoder`."""
    freeze_text: bool = False
    """Whether the text encoder stays as it is."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Precision of the networks' matrix products; losses are computed in fp32."""
    compile: bool = False
    """Compile the model with torch.compile."""
    log_every: Count = 20
    """Steps between lines of the log."""
    save_every: Annotated[int, Field(ge=0)] = 1000
    """Steps between checkpoints, beside the one of each epoch; 0 keeps to epochs."""
    save_epochs: Count = 1
    """Epochs between their checkpoints; the last one always has one."""
    keep_last: Count = 2
    """Checkpoints that are kept, the newest ones."""
    overlays_every: Annotated[int, Field(ge=0)] = 1000
    """Steps between overlays of a few fixed images; 0 draws none."""
    tracker: Literal["none", "tensorboard", "wandb"] = "tensorboard"
    """Where the log's numbers go beside log.jsonl and log.html."""
    evaluate_on: str = ""
    """Data set of `ovseg eval` scored after each epoch, such as "voc"; "retrieval" among the
    photos that are held out, with an aligned model; "" is none."""
    evaluate_every: Count = 1
    """Epochs between these scores; the last one is always scored."""
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

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_aligned(cls, values: Any) -> Any:
        """The paper's entity loss and pictures of groups: off with aligned models unless asked."""
        if not isinstance(values, dict) or not _is_aligned(values.get("model")):
            return values
        off: dict[tuple[str, ...], Any] = {
            ("loss", "entity", "enabled"): False,
            ("train", "overlays_every"): 0,
        }
        return _with_defaults(values, off)

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if self.loss.mask.enabled and self.data.partners == "none":
            raise ValueError(
                'loss.mask needs cross images: set data.partners to "exact" or "in-batch"'
            )
        for wrong, problem in _of_the_kind(self):
            if wrong:
                raise ValueError(problem)
        return self


def _is_aligned(model: Any) -> bool:
    section = model.get("aligned") if isinstance(model, dict) else getattr(model, "aligned", None)
    return section is not None


def _with_defaults(values: dict[str, Any], off: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """The values with others where their sections, as far as they are tables, say nothing."""
    for path, value in off.items():
        head, *rest = path
        inner = values.get(head, {} if rest else value)
        if rest and isinstance(inner, dict):
            inner = _with_defaults(inner, {tuple(rest): value})
        values = {**values, head: inner}
    return values


def _of_the_kind(recipe: Recipe) -> Iterator[tuple[bool, str]]:
    """What does not go with the kind of model, each with whether it is so."""
    loss, data, aligned = recipe.loss, recipe.data, recipe.model.aligned
    if aligned is None:
        only = "is for aligned models: give [model.aligned]"
        yield loss.words.enabled, f"loss.words {only}"
        yield loss.captions.enabled, f"loss.captions {only}"
        yield loss.structure.enabled, f"loss.structure {only}"
        yield loss.contrastive.form != "softmax", f"loss.contrastive.form {only}"
        yield loss.contrastive.score != "mean", f"loss.contrastive.score {only}"
        yield data.captions != "pairs", f"data.captions {only}"
        yield data.views > 1, f"data.views {only}"
        yield data.positions > 0, f"data.positions {only}"
        yield recipe.augmentation.text_noise > 0, f"augmentation.text_noise {only}"
        return
    grouped = loss.entity.enabled or loss.mask.enabled
    yield (
        grouped and not aligned.grouping,
        "loss.entity and loss.mask need groups: set model.aligned.grouping = true, or switch both "
        "off",
    )
    yield (
        loss.mask.enabled and (data.partners != "in-batch" or data.captions != "pairs"),
        'loss.mask needs data.partners = "in-batch" and data.captions = "pairs" in aligned models',
    )
    yield (
        data.positions > 0 and aligned.grouping,
        "data.positions takes the places from a grouping, which needs them all: set it to 0",
    )
    yield data.accumulation > 1, "data.accumulation is for the paper's model: set it to 1"
    yield (
        recipe.train.overlays_every > 0,
        "train.overlays_every is for the paper's model: set it to 0",
    )
    yield recipe.train.compile, "train.compile is for the paper's model: set it to false"
    yield (
        loss.structure.enabled and loss.contrastive.score == "heads",
        'loss.structure needs the mean of the positions, not loss.contrastive.score = "heads"',
    )
