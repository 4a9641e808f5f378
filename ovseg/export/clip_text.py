"""CLIP's text tower as a graph, and its tokenizer as a `tokenizer.json`.

Letters: T text, L token, C embedding width.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ovseg.data.class_list import ClassList
from ovseg.errors import ModelError

# How CLIP's tokenizer (Radford et al., 2021) cuts a text into words.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTextGraph(nn.Module):
    """Prompts to embeddings of unit length, by a causal tower read at its end token.

    Args:
        model: an open_clip model.

    Raises:
        ModelError: the tower is read in another way, as SigLIP's is.
    """

    causal: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        if getattr(model, "text_pool_type", "") != "argmax" or model.attn_mask is None:
            raise ModelError(
                "only text towers of CLIP's own form can be exported, which end at their end token"
            )
        self.embedding = model.token_embedding
        self.transformer = model.transformer
        self.norm = model.ln_final
        self.positions = model.positional_embedding
        self.projection = model.text_projection
        self.register_buffer("causal", model.attn_mask.clone())

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, int64 [T, L], to float [T, C]."""
        length = ids.shape[1]
        x = self.embedding(ids) + self.positions[:length]
        x = self.norm(self.transformer(x, attn_mask=self.causal[:length, :length]))
        end = (mask.sum(dim=1) - 1)[:, None, None]  # the last token before padding
        x = x.gather(1, end.expand(-1, 1, x.shape[2])).squeeze(1)
        projected = self.projection(x) if callable(self.projection) else x @ self.projection
        return functional.normalize(projected, dim=-1)


def clip_tokenizer(tokenizer: Any) -> tuple[Mapping[str, str], int, int]:
    """The file of open_clip's byte-pair tokenizer, its longest text, and what it pads with.

    Raises:
        ModelError: it is another tokenizer, or the file would not read texts as it does.
    """
    if not hasattr(tokenizer, "bpe_ranks"):
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} cannot be exported: only CLIP's own can"
        )
    fast = _fast(tokenizer)
    length = int(tokenizer.context_length)
    _require_agreement(tokenizer, fast, length)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length}
    return {"tokenizer.json": fast.to_str(), "tokenizer_config.json": json.dumps(config)}, length, 0


def _fast(tokenizer: Any) -> Any:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    fast = Tokenizer(BPE(dict(tokenizer.encoder), merges, end_of_word_suffix="</w>"))
    fast.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = int(tokenizer.sot_token_id), int(tokenizer.eot_token_id)
    ends = [(tokenizer.decoder[number], number) for number in (start, end)]
    around = f"{ends[0][0]} $A {ends[1][0]}"
    fast.post_processor = processors.TemplateProcessing(around, None, ends)
    return fast


def _require_agreement(tokenizer: Any, fast: Any, length: int) -> None:
    """Compare both tokenizers on every benchmark's words, and on hard ones."""
    texts = [*_vocabulary(), "Mother's  2nd café,\tàé (v1.5)!", "日本 ☂ 12345", "word " * 100]
    fast.enable_truncation(length)
    for text in texts:
        wanted = tokenizer(["a photo of a " + text])[0].tolist()
        found = fast.encode("a photo of a " + text).ids
        if found != wanted[: len(found)] or any(wanted[len(found) :]):
            raise ModelError(f"the tokenizer's file reads {text!r} in another way than open_clip")
    fast.no_truncation()


def _vocabulary() -> Sequence[str]:
    names = ("voc", "context", "coco", "ade20k")
    return [phrase for name in names for phrase in ClassList.vocabulary(name).phrases]
