"""Texts to token ids.

Letters: B text, L token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ovseg.errors import MissingDependencyError
from ovseg.models.text_encoder import CLIP_PREFIX
from ovseg.models.tokenizer_files import fetch_tokenizer_files, restore_tokenizer


@dataclass(frozen=True)
class Tokens:
    """A batch of tokenised texts, padded to the longest of them.

    Attributes:
        ids: int64 [B, L].
        mask: True at tokens, False at padding, bool [B, L].
    """

    ids: Tensor
    mask: Tensor


class Tokenizer(Protocol):
    """What turns texts into tokens."""

    def __call__(self, texts: Sequence[str]) -> Tokens: ...


class HubTokenizer:
    """A tokenizer of transformers; texts longer than `max_tokens` are cut."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def __call__(self, texts: Sequence[str]) -> Tokens:
        encoded = self.tokenizer(
            list(texts),
            padding="longest",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return Tokens(ids=encoded["input_ids"], mask=encoded["attention_mask"].bool())


class ClipTokenizer:
    """open_clip's tokenizer, without the padding that every text of the batch shares."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def __call__(self, texts: Sequence[str]) -> Tokens:
        length = min(self.max_tokens, self.tokenizer.context_length)
        ids = self.tokenizer(list(texts), context_length=length)  # [B, length]
        end = ids.argmax(dim=1)  # end of text has the highest id
        mask = torch.arange(ids.shape[1])[None] <= end[:, None]
        longest = int(end.max()) + 1
        return Tokens(ids=ids[:, :longest], mask=mask[:, :longest])


def load_tokenizer(encoder: str, revision: str = "main", max_tokens: int = 77) -> Tokenizer:
    """The tokenizer of a text encoder.

    Args:
        encoder: hub name, local folder, or "clip:ARCH/PRETRAINED".
        revision: of the hub's repository.
        max_tokens: longer texts are cut.

    Raises:
        ModelError: it is neither here nor reachable.
    """
    if encoder.startswith(CLIP_PREFIX):
        return _clip_tokenizer(encoder.removeprefix(CLIP_PREFIX).partition("/")[0], max_tokens)
    return HubTokenizer(restore_tokenizer(fetch_tokenizer_files(encoder, revision)), max_tokens)


def _clip_tokenizer(architecture: str, max_tokens: int) -> ClipTokenizer:
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError("open_clip", "torch", "CLIP text towers") from error
    return ClipTokenizer(open_clip.get_tokenizer(architecture), max_tokens)
