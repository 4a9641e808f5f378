"""The losses of an aligned model's step, on tables made by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ovseg.config.losses import ContrastiveLossConfig
from ovseg.losses.contrastive import contrastive_loss
from ovseg.losses.pooling import chosen_heads, unit
from ovseg.training.aligned.lesson import SeenPhotos, _firsts, _named, _same_text, caption_scores


def seen(regions: Tensor, heads: Tensor | None = None) -> SeenPhotos:
    return SeenPhotos(None, regions, unit(regions).mean(dim=1), heads, None)


def test_captions_are_scored_by_the_mean_as_at_inference() -> None:
    torch.manual_seed(0)
    regions, captions = torch.randn(3, 4, 5), torch.randn(6, 5)
    found = caption_scores(seen(regions), captions, ContrastiveLossConfig())
    for image in range(3):
        mean = functional.normalize(regions[image], dim=-1).mean(dim=0)
        for text in range(6):
            cosine = functional.cosine_similarity(mean, captions[text], dim=0)
            assert float(found[image, text]) == pytest.approx(float(cosine), rel=1e-5)


def test_a_caption_that_fits_one_position_scores_by_it() -> None:
    regions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    config = ContrastiveLossConfig(score="attention", sharpness=50.0)
    found = caption_scores(seen(regions), torch.tensor([[2.0, 0.0]]), config)
    assert float(found) == pytest.approx(1.0, abs=1e-6)
    mean = caption_scores(seen(regions), torch.tensor([[2.0, 0.0]]), ContrastiveLossConfig())
    assert float(mean) == pytest.approx(1 / math.sqrt(2), rel=1e-6)


def test_heads_are_chosen_by_the_own_caption_in_training() -> None:
    heads = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    config = ContrastiveLossConfig(score="heads")
    photos = replace(seen(heads), heads=heads)
    captions = torch.tensor([[1.0, 0.1], [0.1, 1.0]])
    own = caption_scores(photos, captions, config, captions[:1])
    torch.testing.assert_close(own, unit(captions)[:, :1].T)
    best = caption_scores(photos, captions, config)
    torch.testing.assert_close(best, unit(captions).amax(dim=1)[None])


def test_first_captions_of_photos() -> None:
    owner = torch.tensor([0, 0, 1, 2, 2, 2])
    assert _firsts(owner, 3).tolist() == [0, 2, 3]


def test_the_same_words_under_another_photo_are_no_wrong_answer() -> None:
    positive = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
    same = _same_text(positive, torch.tensor([4, 7, 4]))
    assert same.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_words_as_a_table() -> None:
    named = _named(torch.tensor([[2, 0], [1, -1], [-1, -1]]), 3)
    assert named.tolist() == [[True, False, True], [False, True, False], [False] * 3]


def test_the_released_loss_choice_of_heads_and_similarity_come_out() -> None:
    """Against what Talk2DINO's own code computed on small towers."""
    stem = Path(__file__).parents[2] / "parity/data/talk2dino-a"
    found = load_file(stem.with_suffix(".safetensors"))
    heads, texts = (found[f"out.train.{n}"] for n in ("head_vectors_scale0125", "projected_text"))
    own = unit(heads) @ unit(texts)[..., None]  # [B, A, 1]
    assert torch.equal(own[..., 0].argmax(dim=1), found["out.train.head_index"])
    config = ContrastiveLossConfig(score="heads")
    scores = caption_scores(replace(seen(heads), heads=heads), texts, config, texts)
    torch.testing.assert_close(scores.T, found["out.train.similarity"], atol=1e-5, rtol=0)
    image, count = chosen_heads(heads, texts), len(texts)
    loss = contrastive_loss(texts, image, torch.tensor(1 / 0.07)) / count**2
    torch.testing.assert_close(loss, found["out.train.loss"][0], atol=1e-5, rtol=0)
