"""What is measured on the features before the first step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.data.dataset.photos import Split
from ovseg.data.vectors import EncodedRow, VectorRows, write_vectors
from ovseg.models.aligned.aligner import read_aligned
from ovseg.training.aligned.lesson import _one_text, _some, see_photos
from ovseg.training.aligned.trainee import statistics
from ovseg.training.run import train
from tests.training.aligned.tiny_recipes import tiny


def test_channels_are_measured_on_the_training_photos(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [EncodedRow({"tokens": random.normal(3, 2, (5, 4))}) for _ in range(8)]
    rows[4] = EncodedRow({}, "damaged")
    write_vectors(tmp_path, 0, {"tokens": 4}, rows)
    mean, deviation = statistics(VectorRows(tmp_path, "tokens", 8, 8), Split(2, 7))
    kept = np.concatenate([rows[n].fields["tokens"].astype(np.float16) for n in (2, 3, 5, 6)])
    assert mean.tolist() == pytest.approx(kept.mean(axis=0).tolist(), abs=1e-3)
    assert deviation.tolist() == pytest.approx(kept.std(axis=0).tolist(), abs=2e-3)


def test_they_are_in_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    train(tiny("align-dinov2-s", photos, tmp_path / "cache"), tmp_path / "run")
    head = read_aligned(tmp_path / "run" / "last.safetensors").model.head
    assert head.standardised and float(head.token_mean.abs().max()) > 0


def test_a_step_may_look_at_some_positions(photos: Path, tmp_path: Path) -> None:
    train(tiny("align-dinov2-s", photos, tmp_path / "cache"), tmp_path / "run")
    head = read_aligned(tmp_path / "run" / "last.safetensors").model.head
    tokens = torch.randn(2, 16, 16)
    whole, some = (see_photos(head, tokens, None, (4, 4), count) for count in (0, 5))
    assert whole.regions.shape == (2, 16, 12) and some.regions.shape == (2, 5, 12)
    for photo in range(2):
        apart = torch.cdist(some.regions[photo], whole.regions[photo])  # each is one of them
        assert float(apart.amin(dim=1).max()) < 1e-4
        assert len(set(apart.argmin(dim=1).tolist())) == 5
    assert torch.equal(some.original, whole.original)


def test_words_and_their_texts_are_drawn_alike_everywhere() -> None:
    numbers, words = torch.arange(9), torch.randn(9, 3, 2)
    drawn = [_some(numbers, 4, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 4
    assert _some(numbers, 9, torch.Generator()).tolist() == list(range(9))
    found = _one_text(words, torch.Generator().manual_seed(3))
    assert all(any(torch.equal(f, text) for text in w) for f, w in zip(found, words, strict=True))
