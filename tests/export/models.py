"""Models small enough to export in seconds, with random weights."""

from typing import Any

import torch

from ovseg.config.schema import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from ovseg.data.class_list import ClassList
from ovseg.models.interface import ModelCard
from ovseg.models.ovsegmentor.build import build_ovsegmentor
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.models.tokenizer import HubTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "."]


def voc_tokenizer() -> Any:
    """A BERT tokenizer that knows the classes of PASCAL VOC and the words around them."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *ClassList.vocabulary("voc").names]
    vocabulary = {word: index for index, word in enumerate(words)}
    return PreTrainedTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(vocab=vocabulary)._tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


TINY_TEXT = TextEncoderConfig(
    encoder="",
    architecture="bert",
    width=48,
    depth=2,
    heads=4,
    mlp_width=96,
    vocab_size=64,
    max_positions=80,
)
"""A text encoder for tests in which the text does not matter."""


def tiny_predictor(seed: int = 0) -> Predictor:
    """An OVSegmentor with two and two blocks, whose scores are spread as a trained one's are."""
    torch.manual_seed(seed)
    model = build_ovsegmentor(
        ModelConfig(
            image=ImageEncoderConfig(
                backbone="", width=64, depths=(2, 2), heads=4, group_tokens=16, image_size=64
            ),
            text=TINY_TEXT,
            embedding_width=32,
            projector_width=64,
        )
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    card = ModelCard("tiny", "ovsegmentor", "random weights", "CC0-1.0", f"{seed:064x}")
    return Predictor(model, HubTokenizer(voc_tokenizer(), 40), card)
