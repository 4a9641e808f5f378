"""Text encoders: the BERT family through transformers, CLIP text towers through open_clip.

Letters: B text, L token, E text width.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ovseg.errors import MissingDependencyError, ModelError, UsageError

Pooling = Literal["first", "mean"]


@dataclass(frozen=True)
class EncodedText:
    """A batch of encoded texts.

    Attributes:
        sentence: one feature per text, float [B, E].
        tokens: last hidden states, float [B, L, E]; padding holds values that mean nothing.
        mask: True where there is a token, False at padding, bool [B, L].
    """

    sentence: Tensor
    tokens: Tensor
    mask: Tensor


class BertEncoder(nn.Module):
    """A transformer of the BERT family and a way to pool its tokens.

    Args:
        transformer: as `pretrained_transformer` or `sized_transformer` make it.
        pooling: "first" takes the first token ([CLS]), "mean" the mean over real tokens.
    """

    def __init__(self, transformer: nn.Module, pooling: Pooling = "first") -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling

    @property
    def width(self) -> int:
        """Width E of the features."""
        config: Any = self.transformer.config
        return int(config.hidden_size)

    def forward(self, ids: Tensor, mask: Tensor) -> EncodedText:
        """Encode token ids, int64 [B, L], with their mask, bool or int [B, L]."""
        mask = mask.bool()
        tokens = self.transformer(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        sentence = tokens[:, 0] if self.pooling == "first" else masked_mean(tokens, mask)
        return EncodedText(sentence=sentence, tokens=tokens, mask=mask)


class ClipTextEncoder(nn.Module):
    """A CLIP text tower of open_clip, read before its own projection, or behind it if it has one.

    The sentence feature is the end-of-text token, the only one that a causal tower lets see the
    whole text. Token ids are CLIP's: the end of text has the highest id.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    @property
    def width(self) -> int:
        """Width E of the sentence features."""
        tower: Any = self.tower
        projection = tower.text_projection
        if projection is None:
            return int(tower.ln_final.weight.shape[0])
        return int(_projection_matrix(projection).shape[1])

    def forward(self, ids: Tensor, mask: Tensor) -> EncodedText:
        """Encode token ids, int64 [B, L], L at most the tower's context length."""
        tower: Any = self.tower
        length = ids.shape[1]
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]
        # open_clip itself always runs the full context; a prefix of a causal tower is the same.
        causal = tower.attn_mask[:length, :length].to(x.dtype)
        tokens = tower.ln_final(tower.transformer(x, attn_mask=causal))  # [B, L, E]
        end = ids.argmax(dim=1)
        sentence = tokens[torch.arange(len(ids), device=ids.device), end]
        if tower.text_projection is not None:
            sentence = sentence @ _projection_matrix(tower.text_projection)
        return EncodedText(sentence=sentence, tokens=tokens, mask=mask.bool())


TextEncoder = BertEncoder | ClipTextEncoder


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, float [B, E]; zero for a text without any."""
    weight = mask[..., None].to(tokens.dtype)  # [B, L, 1]
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


def pretrained_transformer(name: str, revision: str = "main") -> nn.Module:
    """Fetch a transformer of the BERT family.

    Args:
        name: hub name such as `bert-base-uncased`, or a folder with `config.json` and
            `model.safetensors`. Pickled weights are not read.

    Raises:
        ModelError: it is neither there nor reachable.
    """
    auto = _transformers("text encoders").AutoModel
    try:
        transformer = auto.from_pretrained(name, revision=revision, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"text encoder {name!r} cannot be loaded: it is no folder with config.json and "
            "model.safetensors, and the hub did not give it "
            f"({str(error).splitlines()[0]}). Without a network, put those files and the "
            "tokenizer's into a folder and give its path as model.text.encoder"
        ) from error
    return _without_pooler(transformer)


def sized_transformer(
    architecture: str,
    width: int,
    depth: int,
    heads: int,
    mlp_width: int,
    vocab_size: int,
    max_positions: int,
) -> nn.Module:
    """A transformer of these sizes with random weights; needs no network.

    Args:
        architecture: transformers' name of it, such as "bert", "roberta" or "distilbert".

    Raises:
        UsageError: transformers knows no such architecture.
    """
    transformers = _transformers("text encoders")
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "max_position_embeddings": max_positions,
        # DistilBERT alone has another name for it; the four above are mapped by transformers.
        "hidden_dim" if architecture == "distilbert" else "intermediate_size": mlp_width,
    }
    try:
        config = transformers.AutoConfig.for_model(architecture, **sizes)
    except ValueError as error:
        raise UsageError(
            f"model.text.architecture {architecture!r} is not one that transformers knows: "
            'use "bert", "roberta" or "distilbert"'
        ) from error
    return _without_pooler(transformers.AutoModel.from_config(config))


def _projection_matrix(projection: Any) -> Tensor:
    """From the width of a tower to that of CLIP's embeddings, [E, C]: a parameter or a layer."""
    return projection.weight.T if isinstance(projection, nn.Linear) else projection


def pretrained_clip_tower(architecture: str, pretrained: str, projected: bool = False) -> nn.Module:
    """The text tower of an open_clip model.

    Args:
        pretrained: a tag, a file or "" for random weights.
        projected: keep its own projection.
    """
    open_clip = _open_clip()
    # Which activation they need is a property of weights; open_clip only warns of a mismatch.
    known = open_clip.get_pretrained_cfg(architecture.removesuffix("-quickgelu"), pretrained)
    try:
        clip = open_clip.create_model(
            architecture,
            pretrained=pretrained or None,
            force_quick_gelu=bool(known.get("quick_gelu", False)),
            force_custom_text=True,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelError(
            f"CLIP text tower clip:{architecture}/{pretrained} cannot be loaded: "
            f"{str(error).splitlines()[0]}. Without a network, give a weight file's path in "
            "place of the tag"
        ) from error
    tower = _plain_tower(clip.text)
    if not projected:  # ours replaces it
        tower.text_projection = None
    return tower


def _plain_tower(tower: Any) -> Any:
    """The tower; refuses those of another build."""
    parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask")
    missing = [part for part in parts if getattr(tower, part, None) is None]
    if missing or getattr(tower, "pool_type", "argmax") != "argmax":
        raise ModelError(
            "only causal CLIP text towers with end-of-text pooling can be used (ViT-B-32, "
            f"ViT-B-16, ViT-L-14, ...); this one lacks {', '.join(missing) or 'that pooling'}"
        )
    return tower


def _without_pooler(transformer: Any) -> nn.Module:
    """BERT's pooler is a second head on the first token, which nothing here reads."""
    if hasattr(transformer, "pooler"):
        transformer.pooler = None
    return transformer


def _transformers(purpose: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("transformers", "torch", purpose) from error
    return transformers


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError("open_clip", "torch", "CLIP text towers") from error
    return open_clip
