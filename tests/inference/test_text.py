"""The cache of class embeddings: by model, template and phrase; never in the way."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

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


def stored(own_cache: Path) -> Path:
    (file,) = (own_cache / "embeddings").iterdir()
    return file


def test_a_model_without_a_hash_shares_with_nobody(own_cache: Path) -> None:
    """Neither files that have none, nor a model whose weights change while it is trained."""
    for claimed in ("", "0" * 32, f"{'a' * 64}-3", "../../somewhere"):
        model = ColourModel()
        model.card = replace(model.card, content_hash=claimed)
        EmbeddingCache(model).get(["red"], ("{}",))
    assert not (own_cache / "embeddings").exists()


def test_every_letter_of_a_hash_counts() -> None:
    """Models in training had names that began alike, and got each other's embeddings."""
    for end in ("0", "1"):
        model = ColourModel()
        model.card = replace(model.card, content_hash="a" * 63 + end)
        EmbeddingCache(model).get(["red"], ("{}",))
        assert model.encoded == ["red"]


@pytest.mark.parametrize(
    "values",
    [
        {"red": np.zeros(5, np.float32)},  # of another model
        {"red": np.full(3, np.nan, np.float32)},
        {"red": np.zeros((3, 1), np.float32)},
        {"red": np.zeros(3, np.float64)},
        {"red": np.zeros(3, np.int64)},
        {"red": np.zeros(3, np.float32), "blue": np.zeros(4, np.float32)},
    ],
)
def test_embeddings_that_are_none_are_made_again(
    own_cache: Path, values: dict[str, np.ndarray]
) -> None:
    EmbeddingCache(ColourModel()).get(["red"], ("{}",))
    save_file(values, stored(own_cache))
    found = EmbeddingCache(ColourModel()).get(["red", "blue"], ("{}",))
    assert found.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_one_changed_bit_is_noticed(own_cache: Path) -> None:
    EmbeddingCache(ColourModel()).get(["red"], ("{}",))
    file = stored(own_cache)
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    assert EmbeddingCache(ColourModel()).get(["red"], ("{}",)).tolist() == [[1, 0, 0]]


def test_what_is_not_finite_is_not_kept(own_cache: Path) -> None:
    class Broken(ColourModel):
        def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> np.ndarray:
            return np.full((len(phrases), 3), np.inf, np.float32)

    EmbeddingCache(Broken()).get(["red"], ("{}",))
    assert not (own_cache / "embeddings").exists()
