"""Phrases to class embeddings with a CLIP text tower.

Letters: P prompt, Q phrase, L token, C embedding width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PROMPTS_A_BATCH = 256


def embed_phrases(
    model: Any, tokenizer: Any, phrases: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Each phrase in each template, encoded, normalised, averaged and normalised: [Q, C]."""
    prompts = [template.format(phrase) for phrase in phrases for template in templates]
    device = next(model.parameters()).device
    batches = [
        F.normalize(encode(model, tokenizer(list(batch)).to(device)).float(), dim=-1)
        for batch in _batches(prompts)
    ]
    each = torch.cat(batches).reshape(len(phrases), len(templates), -1)  # [Q, P, C]
    return F.normalize(each.mean(dim=1), dim=-1)


def encode(model: Any, tokens: Tensor) -> Tensor:
    """Text features of tokens [P, L], not normalised: [P, C].

    CLIP's text tower is causal and read at its end token, so what lies behind the longest prompt
    of the batch changes nothing and is cut off: a few words need 10 of the 77 positions.
    """
    if getattr(model, "text_pool_type", "") != "argmax" or model.attn_mask is None:
        return model.encode_text(tokens)
    length = int(tokens.argmax(dim=-1).max()) + 1  # the end token has the highest number
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    x = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
    projection = model.text_projection
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


def _batches(prompts: Sequence[str]) -> list[Sequence[str]]:
    return [prompts[i : i + PROMPTS_A_BATCH] for i in range(0, len(prompts), PROMPTS_A_BATCH)]
