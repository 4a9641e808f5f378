"""A tokenizer learned from the captions, for text encoders that start from nothing.

Whole words, the most frequent ones, and single characters for the rest: nothing to download, and
the same for the same captions.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ovseg.errors import MissingDependencyError, RecipeError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'-&!?"


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
