"""From a recipe to the parts of a run: model, tokenizer, data, optimizer."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ovseg.config.schema import LossConfig, ModelConfig, Recipe, TrainConfig
from ovseg.data.dataset.index import PairIndex, open_index
from ovseg.data.dataset.webdataset import expand
from ovseg.errors import RecipeError, UsageError
from ovseg.models.checkpoint import load_state, read_info, read_tensors
from ovseg.models.ovsegmentor.build import build_ovsegmentor
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.ovsegmentor.text_encoder import BertEncoder
from ovseg.models.templates import imagenet_templates
from ovseg.models.tokenizer import (
    CLIP_PREFIX,
    HubTokenizer,
    Tokenizer,
    TokenizerFiles,
    collect_tokenizer_files,
    fetch_tokenizer_files,
    load_tokenizer,
    restore_tokenizer,
)
from ovseg.training.feed.augmentation import Augmentation, augmentation_of, self_check
from ovseg.training.feed.maker import BatchMaker, Wanted
from ovseg.training.feed.pairs import Draw
from ovseg.training.feed.sampler import IndexSampler, Share, steps_per_epoch
from ovseg.training.feed.stream import StreamSampler
from ovseg.training.feed.vocabulary import learn_tokenizer
from ovseg.training.step import LossWeights

_log = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CAPTIONS_LEARNED_FROM = 200_000


@dataclass(frozen=True)
class Texts:
    """A tokenizer, the files it consists of (None for CLIP's), and its mask token."""

    tokenizer: Tokenizer
    files: TokenizerFiles | None
    mask: str


@dataclass(frozen=True)
class Source:
    """Where pairs come from: an index, or shards to be read as a stream.

    Attributes:
        index: None for a stream.
        addresses: of the stream's shards.
        fingerprint: changes when the pairs do.
    """

    index: PairIndex | None
    addresses: tuple[str, ...]
    fingerprint: str

    def steps_per_epoch(self, recipe: Recipe, share: Share) -> int:
        """Optimizer steps in an epoch; a stream, whose length nobody knows, has one for the run."""
        if self.index is not None:
            return steps_per_epoch(len(self.index), share)
        if recipe.schedule.max_steps == 0:
            raise RecipeError(
                "data.shards are read as a stream, whose length is not known: set "
                "schedule.max_steps, or make an index with ovseg build-dataset"
            )
        return recipe.schedule.max_steps

    def sampler(
        self, recipe: Recipe, share: Share, first_step: int, last_step: int
    ) -> Iterable[list[Draw]]:
        """The draws of one process."""
        if self.index is None:
            seed = recipe.train.seed
            return StreamSampler(self.addresses, share, seed, first_step, last_step)
        paired = recipe.loss.mask.enabled and recipe.data.partners == "in-batch"
        return IndexSampler(self.index, share, recipe.train.seed, paired, first_step, last_step)


def open_source(recipe: Recipe) -> Source:
    """Open what `data.shards` names.

    Raises:
        RecipeError: it names nothing, or folders and tar files at once.
        DataError: something is missing or damaged.
    """
    shards = recipe.data.shards
    if not shards:
        raise RecipeError(
            "data.shards is empty: name the folder that ovseg build-dataset made, as "
            """--set data.shards='["/data/cc4m"]'"""
        )
    tars = [shard for shard in shards if shard.endswith(".tar")]
    if tars and len(tars) < len(shards):
        raise RecipeError("data.shards mixes folders and .tar files: give one kind")
    if tars:
        return _stream(recipe, tuple(expand(tars)))
    index = open_index(shards)
    index.check_shards()
    if recipe.data.partners == "exact" and recipe.loss.mask.enabled:
        index.load_partners()
    return Source(index, (), index.fingerprint())


def _stream(recipe: Recipe, addresses: tuple[str, ...]) -> Source:
    if recipe.loss.mask.enabled:
        raise RecipeError(
            "loss.mask needs to know which pairs share an entity, which a stream of .tar files "
            "does not say: make an index with ovseg build-dataset"
        )
    return Source(None, addresses, "|".join(address.rpartition("/")[2] for address in addresses))


def share_of(recipe: Recipe, rank: int, world_size: int) -> Share:
    """How a step's pairs are dealt; RecipeError if partners cannot sit side by side."""
    size = recipe.data.batch_size
    if recipe.loss.mask.enabled and recipe.data.partners == "in-batch" and size % 2:
        raise RecipeError(f"data.batch_size {size} is odd: in-batch partners come in twos")
    return Share(size, recipe.data.accumulation, rank, world_size)


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
    model = build_ovsegmentor(_sized_like(recipe.model, info.recipe.model), contrastive=contrastive)
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


def build_texts(recipe: Recipe, source: Source) -> Texts:
    """The tokenizer: the start checkpoint's, the named one, or one learned from the captions.

    Raises:
        ModelError: the named one is neither here nor reachable.
        RecipeError: there is nothing to learn one from.
    """
    text = recipe.model.text
    if text.encoder.startswith(CLIP_PREFIX):
        # CLIP has no mask token; its vocabulary spells this one out.
        tokenizer = load_tokenizer(text.encoder, text.revision, text.max_tokens)
        return Texts(tokenizer, None, "[MASK]")
    files = None
    if recipe.train.start_from:
        files = read_info(start_path(recipe.train)).tokenizer
    name = text.tokenizer or text.encoder
    if files is None and name:
        files = fetch_tokenizer_files(name, text.revision)
    if files is None:
        files = _learned(recipe, source)
    tokenizer = restore_tokenizer(files)
    mask = getattr(tokenizer, "mask_token", None)
    if recipe.loss.entity.enabled and not mask:
        raise RecipeError(f"tokenizer {files.name} has no mask token, which loss.entity needs")
    return Texts(HubTokenizer(tokenizer, text.max_tokens), files, mask or "")


def _learned(recipe: Recipe, source: Source) -> TokenizerFiles:
    if source.index is None:
        raise RecipeError("model.text.tokenizer is empty: name one, or train from an index")
    folders = source.index.folders
    captions = (text for f in folders for text in f.captions[:_CAPTIONS_LEARNED_FROM].to_pylist())
    learned = learn_tokenizer(captions, recipe.model.text.vocab_size or 0)
    return collect_tokenizer_files(learned, "learned from the captions")


def build_maker(recipe: Recipe, source: Source, texts: Texts) -> BatchMaker:
    """What turns draws into batches."""
    wanted = Wanted(
        questions=recipe.loss.entity.enabled,
        partners=recipe.data.partners if recipe.loss.mask.enabled else "none",
        mask=texts.mask,
        templates=imagenet_templates() if recipe.loss.entity.enabled else (),
    )
    return BatchMaker(source.index, checked_augmentation(recipe), texts.tokenizer, wanted)


def checked_augmentation(recipe: Recipe) -> Augmentation:
    """The recipe's augmentation, without operations that crash with the libraries installed."""
    augmentation = augmentation_of(recipe.augmentation, recipe.model.image.image_size)
    problems = self_check(augmentation)
    for problem in problems:
        _log.warning("left out of augmentation.rand_augment: %s", problem)
    if problems and augmentation.policy is not None:
        broken = {problem.split(" ", 1)[0] for problem in problems}
        policy = augmentation.policy
        # timm draws operations by position, so the list must keep its length: twice another one.
        working = [each for each in policy.ops if each.name not in broken]
        count = len(policy.ops)
        policy.ops = [working[number % len(working)] for number in range(count)]
    return augmentation


def loss_weights_of(loss: LossConfig) -> LossWeights:
    """The weights of the losses that are on."""
    return LossWeights(
        contrastive=loss.contrastive.weight if loss.contrastive.enabled else 0.0,
        entity=loss.entity.weight if loss.entity.enabled else 0.0,
        mask=loss.mask.weight if loss.mask.enabled else 0.0,
        threshold=loss.mask.threshold,
        trained_groups=loss.mask.trained_groups,
        smoothing=loss.mask.smoothing,
        resolution=loss.mask.resolution,
    )
