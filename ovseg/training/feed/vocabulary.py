"""The tokenizer of a run: a checkpoint's, a named one, or one learned from the captions.

What is learned are whole words, the most frequent ones, and single characters for the rest: nothing
to download, and the same for the same captions.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ovseg.config.schema import Recipe
from ovseg.errors import MissingDependencyError, RecipeError
from ovseg.models.aligned.assembly import located
from ovseg.models.checkpoint import read_info
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
from ovseg.training.feed.source import PairSource
from ovseg.training.start import start_path

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'-&!?"
_CAPTIONS_LEARNED_FROM = 200_000


def learn_tokenizer(captions: Iterable[str], size: int) -> Any:
    """A transformers tokenizer of BERT's kind with at most `size` words.

    Raises:
        RecipeError: `size` has no room for single characters.
    """
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependencyError("transformers", "torch", "tokenizers") from error
    tokenizer = Tokenizer(models.WordPiece(_vocabulary(captions, size), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, SPECIAL, strict=True))
    )


def _vocabulary(captions: Iterable[str], size: int) -> dict[str, int]:
    from tokenizers import normalizers, pre_tokenizers

    normalise, split = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    pieces = [*SPECIAL, *_CHARACTERS, *(f"##{letter}" for letter in _CHARACTERS)]
    if size < len(pieces):
        raise RecipeError(f"model.text.vocab_size must be at least {len(pieces)} to learn words")
    words: Counter[str] = Counter()
    for caption in captions:
        normal = normalise.normalize_str(caption)
        words.update(word for word, _ in split.pre_tokenize_str(normal))
    ranked = sorted(words, key=lambda word: (-words[word], word))
    vocabulary = dict.fromkeys([*pieces, *ranked])
    return {word: number for number, word in enumerate(list(vocabulary)[:size])}


@dataclass(frozen=True)
class MaskingTokenizer:
    """A tokenizer, the files it consists of (None for CLIP's), and its mask token."""

    tokenizer: Tokenizer
    files: TokenizerFiles | None
    mask: str


def build_tokenizer(recipe: Recipe, source: PairSource) -> MaskingTokenizer:
    """The tokenizer: the start checkpoint's, the named one, or one learned from the captions.

    Raises:
        ModelError: the named one is neither here nor reachable.
        RecipeError: there is nothing to learn one from.
    """
    text = located(recipe.model.text)
    if text.encoder.startswith(CLIP_PREFIX):
        # CLIP has no mask token; its vocabulary spells this one out.
        tokenizer = load_tokenizer(text.encoder, text.revision, text.max_tokens)
        return MaskingTokenizer(tokenizer, None, "[MASK]")
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
    return MaskingTokenizer(HubTokenizer(tokenizer, text.max_tokens), files, mask or "")


def _learned(recipe: Recipe, source: PairSource) -> TokenizerFiles:
    if source.index is None:
        raise RecipeError("model.text.tokenizer is empty: name one, or train from an index")
    folders = source.index.folders
    captions = (text for f in folders for text in f.captions[:_CAPTIONS_LEARNED_FROM].to_pylist())
    learned = learn_tokenizer(captions, recipe.model.text.vocab_size or 0)
    return collect_tokenizer_files(learned, "learned from the captions")
