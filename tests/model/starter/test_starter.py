"""The built-in model: its network, its words, its scores."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch

from ovseg.model.starter.model import StarterModel
from ovseg.model.starter.network import EfficientNetLite
from ovseg.model.starter.words import WordTable

TOOLS = Path(__file__).parents[3] / "tools"


def load_tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def words() -> WordTable:
    return WordTable()


@pytest.fixture(scope="module")
def model() -> StarterModel:
    return StarterModel()


def test_network_with_folded_weights_equals_timm() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    ours = EfficientNetLite().eval()
    folded = load_tool("make_starter_weights").folded(list(theirs.state_dict().values()))
    ours.load_state_dict(dict(zip(ours.state_dict(), folded, strict=True)))
    pixels = torch.randn(2, 3, 96, 127)
    with torch.no_grad():
        expected, found = theirs.forward_features(pixels), ours.features(pixels)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_word_is_the_classes_below_it(words: WordTable) -> None:
    weights = words.weights("cat")
    full = {words.classes[index] for index in np.flatnonzero(weights == 1)}
    assert {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"} <= full
    big_cats = weights[words.classes.index("lion")]
    assert 0 < big_cats < 0.1, "the rare sense counts little"
    assert (words.weights("dog") > 0).sum() == 118
    assert not (weights * words.weights("dog")).any()


@pytest.mark.parametrize(
    ("phrase", "word"),
    [
        ("cats", "cat"),
        ("Dining Tables", "dining table"),
        ("geese", "goose"),
        ("buses", "bus"),
        ("butterflies", "butterfly"),
        ("bus", "bus"),
        ("very old sports_car", "sports car"),
        ("pocket-stopwatch", "stopwatch"),
        ("frisbee", None),
        ("", None),
    ],
)
def test_resolving_phrases(words: WordTable, phrase: str, word: str | None) -> None:
    assert words.resolve(phrase) == word


def test_unknown_words_come_with_the_nearest(words: WordTable) -> None:
    giraffe, typo = words.unknown(["cat", "giraffe", "elefant"])
    assert (giraffe.phrase, giraffe.nearest[0]) == ("giraffe", "ox")
    assert "elephant" in typo.nearest


def test_every_listed_word_can_be_grounded(words: WordTable) -> None:
    assert len(words.words) > 3000
    assert all(words.weights(word).any() for word in words.words)


def test_scores_are_summed_probabilities(model: StarterModel) -> None:
    grouped = model.encode_image(torch.zeros(2, 3, 64, 96))
    assert grouped.grid == (2, 3)
    assert grouped.embedding.shape == (2, 6, 1000)
    assert torch.allclose(grouped.embedding.sum(dim=-1), torch.ones(2, 6), atol=1e-5)
    text = model.encode_text(["cat", "frisbee"], model.templates)
    scores = model.score(grouped, text, threshold=0.25)
    expected = (grouped.embedding * text[0]).sum(dim=-1)
    assert torch.allclose(scores[..., 1], expected, atol=1e-6)
    assert (scores[..., 0] == 0.25).all()
    assert (scores[..., 2] == 0).all()
    assert model.score(grouped, text, None)[0, 0, 0] == float("-inf")


def test_weights_are_small(model: StarterModel) -> None:
    folder = Path(__file__).parents[3] / "ovseg/model/starter"
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    assert size < 10e6
    assert model.card.kind == "starter"
    assert "not an OVSegmentor" in model.card.description
