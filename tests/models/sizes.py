"""Small models, and a tokenizer that needs no network."""

from pathlib import Path
from typing import Any

from ovseg.config.schema import (
    EntityDecoderConfig,
    ImageEncoderConfig,
    ModelConfig,
    TextEncoderConfig,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", ".", "cat", "dog", "sky"]


def small_image(**changes: Any) -> ImageEncoderConfig:
    values: dict[str, Any] = {
        "backbone": "",
        "width": 32,
        "depths": (1, 2),
        "heads": 4,
        "image_size": 64,
        "group_tokens": 6,
        "groups": 3,
    }
    return ImageEncoderConfig(**(values | changes))


def small_text(**changes: Any) -> TextEncoderConfig:
    values: dict[str, Any] = {
        "encoder": "",
        "architecture": "bert",
        "width": 24,
        "depth": 1,
        "heads": 4,
        "mlp_width": 48,
        "vocab_size": 40,
        "max_positions": 20,
        "max_tokens": 16,
    }
    return TextEncoderConfig(**(values | changes))


def small_model(image: Any = None, text: Any = None, **changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "embedding_width": 16,
        "projector_width": 40,
        "image": image or small_image(),
        "text": text or small_text(),
        "entity": EntityDecoderConfig(heads=4),
    }
    return ModelConfig(**(values | changes))


def write_tokenizer(folder: Path) -> Path:
    """A word-piece tokenizer of a dozen words, in the files that transformers reads."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=special
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(folder)
    return folder
