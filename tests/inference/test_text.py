"""The cache of class embeddings: by model, template and phrase; never in the way."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ovseg.inference.text import EmbeddingCache
from tests.inference.fakes import ColourModel


def test_each_phrase_is_encoded_once() -> None:
    model = ColourModel()
    cache = EmbeddingCache(model)
    first = cache.get(["red", "blue", "red"], ("{}",))
    assert first.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
    cache.get(["blue", "green"], ("{}",))
    assert model.encoded == ["red", "blue", "green"]


def test_the_next_process_reads_it_from_disk() -> None:
    EmbeddingCache(ColourModel()).get(["red", "blue"], ("{}",))
    model = ColourModel()
    assert EmbeddingCache(model).get(["blue"], ("{}",)).tolist() == [[0, 0, 1]]
    assert model.encoded == []


def test_another_model_or_template_shares_nothing() -> None:
    EmbeddingCache(ColourModel()).get(["red"], ("{}",))
    other = ColourModel()
    other.card = replace(other.card, content_hash="e" * 64)
    EmbeddingCache(other).get(["red"], ("{}",))
    EmbeddingCache(other).get(["red"], ("a photo of a {}.",))
    assert other.encoded == ["red", "red"]


def test_a_damaged_cache_is_replaced(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    EmbeddingCache(ColourModel()).get(["red"], ("{}",))
    (file,) = (own_cache / "embeddings").iterdir()
    file.write_bytes(b"not safetensors")
    with caplog.at_level(logging.WARNING):
        assert EmbeddingCache(ColourModel()).get(["red"], ("{}",)).tolist() == [[1, 0, 0]]
    assert "unreadable" in caplog.text
    model = ColourModel()
    EmbeddingCache(model).get(["red"], ("{}",))
    assert model.encoded == []


def test_works_without_a_place_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "file"))
    values = EmbeddingCache(ColourModel()).get(["green"], ("{}",))
    assert np.array_equal(values, [[0, 1, 0]])
