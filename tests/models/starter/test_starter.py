"""The built-in model: its network, its words, its scores."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch

from ovseg.data.class_list import ClassList
from ovseg.models.enlarging import at_grid
from ovseg.models.scoring import starter_scores
from ovseg.models.starter.model import StarterModel
from ovseg.models.starter.network import CLASSES, EfficientNetLite
from ovseg.models.starter.words import WordTable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOOLS = Path(__file__).parents[3] / "tools"
FOLDER = Path(__file__).parents[3] / "ovseg/models/starter"


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


@pytest.mark.parametrize("stride", [16, 32])
def test_network_with_folded_weights_equals_timm(stride: int) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite2", output_stride=stride).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    ours = EfficientNetLite(stride=stride).eval()
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
        ("an old woman", "woman"),
        ("women", "woman"),
        ("mobile phone", "mobile phone"),
        ("frisbee", None),
        ("fire hydrant", None),
        ("", None),
    ],
)
def test_resolving_phrases(words: WordTable, phrase: str, word: str | None) -> None:
    assert words.resolve(phrase) == word


def test_words_without_a_class_mean_what_the_table_by_hand_says(words: WordTable) -> None:
    entries = tomllib.loads((FOLDER / "groundings.toml").read_text(encoding="utf-8"))
    cow = words.weights("cow")
    assert {words.classes[i]: float(cow[i]) for i in np.flatnonzero(cow)} == pytest.approx(
        entries["cow"]
    )
    assert (words.weights("smartphone") == words.weights("cell phone")).all()
    assert (words.weights("women") == words.weights("person")).all()
    assert not words.weights("fire hydrant").any()


def test_the_table_by_hand_is_the_shipped_one(words: WordTable) -> None:
    groundings = load_tool("make_starter_words").read_groundings(
        FOLDER / "groundings.toml", words.classes
    )
    for word, shares in groundings.items():
        weights = words.weights(word)
        assert {i: float(weights[i]) for i in np.flatnonzero(weights)} == pytest.approx(
            dict(shares)
        )


def test_an_entry_that_names_no_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groundings.toml"
    path.write_text('[aliases]\n[cow]\n"oxx" = 1\n')
    with pytest.raises(SystemExit, match=r"cow: oxx = 1: no class"):
        load_tool("make_starter_words").read_groundings(path, ["ox"])


@pytest.mark.parametrize("word", ["guitar", "volcano", "strawberry", "violin", "castle", "parrot"])
def test_words_beyond_any_benchmark_are_known(words: WordTable, word: str) -> None:
    assert words.weights(word).max() == 1


def test_unknown_words_come_with_the_nearest(words: WordTable) -> None:
    okapi, typo = words.unknown(["cat", "okapi", "elefant"])
    assert (okapi.phrase, okapi.nearest[0]) == ("okapi", "ox")
    assert "elephant" in typo.nearest


def test_learned_words_have_a_row_of_the_classifier_each(
    model: StarterModel, words: WordTable
) -> None:
    learned = list(tomllib.loads((FOLDER / "learned.toml").read_text(encoding="utf-8")))
    assert words.classes[CLASSES : CLASSES + len(learned)] == [f"{w} by its stamp" for w in learned]
    assert model.network.classifier.out_features == CLASSES + len(learned)
    for place, word in enumerate(learned):
        assert words.weights(word)[CLASSES + place] == 1


def test_rows_are_learned_that_tell_positions_apart() -> None:
    tool = load_tool("make_starter_rows")
    tool.STEPS, tool.BATCH, tool.SHARE = 60, 128, 16
    torch.manual_seed(0)
    network = EfficientNetLite().eval()
    directions = torch.eye(2, network.classifier.in_features) * 30
    mine = [direction + torch.rand(50, len(direction)) for direction in directions]
    rest = torch.rand(200, directions.shape[1])
    rows, biases = tool.learn(network, mine, rest)
    for features, expected in [(mine[0], 1000), (mine[1], 1001)]:
        old = network.classifier(features)
        logits = torch.cat([old, features @ rows.T + biases], dim=-1)
        assert (logits.argmax(dim=-1) == expected).all()
    assert ((rest @ rows.T + biases) < network.classifier(rest).logsumexp(-1, True)).all()


def test_a_scene_shows_its_stamp_where_it_says() -> None:
    tool = load_tool("make_starter_rows")
    stamp = np.full((50, 30, 4), 255, np.uint8)
    ground = np.zeros((tool.SIDE + 9, tool.SIDE + 99, 3), np.uint8)
    scene, share = tool.compose(np.random.default_rng(1), stamp, ground)
    assert scene.shape == (tool.SIDE, tool.SIDE, 3)
    assert 0 < share.mean() < 1
    assert ((scene > 200) == (share[..., None] > 0.9)).all()


def test_every_listed_word_can_be_grounded(words: WordTable) -> None:
    assert len(words.words) > 3000
    assert all(words.embedding(word).any() for word in words.words)


def test_scores_are_what_the_rule_makes_of_both(model: StarterModel) -> None:
    grouped = model.encode_image(torch.zeros(2, 3, 64, 96))
    assert grouped.grid == (8, 12)
    assert grouped.embedding.shape == (2, 24, model.words.width - 2)
    assert grouped.weights is not None and grouped.weights.shape == (2, 96, 3)
    objects = grouped.embedding[..., : model.network.classifier.out_features].sum(dim=-1)
    assert ((objects > 0) & (objects < 1)).all()
    text = model.encode_text(["cat", "frisbee"], model.templates)
    scores = model.score(grouped, text, threshold=0.25)
    # As if what positions show were enlarged before it is compared with words.
    fine = at_grid(grouped).embedding
    classes = len(model.words.classes)
    weighted = [grouped.weights[..., :1] * fine[..., :classes], fine[..., classes:]]
    positions = torch.cat([*weighted, grouped.weights[..., 1:]], dim=-1)
    expected = starter_scores(positions, text, 0.25, model.words.captions)
    torch.testing.assert_close(scores, expected)
    assert (scores[..., 0] == 0.25).all()
    assert (scores[..., 2] == 0).all()
    assert model.score(grouped, text, None)[0, 0, 0] == float("-inf")


def test_a_word_has_its_classes_and_what_captions_say_of_it(words: WordTable) -> None:
    classes, width = len(words.classes), words.captions
    cat, sky = words.embedding("three cats"), words.embedding("sky")
    assert (cat[:classes] == words.weights("cat")).all()
    for found in (cat, sky):
        things, around = found[classes : classes + width], found[classes + width : -2]
        assert np.linalg.norm(around[:-1]) == pytest.approx(1, abs=1e-2)
        assert np.allclose(things, things[-1] * around) and around[-1] == 1
    assert (*cat[-2:], *sky[-2:]) == (0, 0, 0, 1)
    assert not sky[:classes].any()
    assert not words.embedding("frisbee").any()


def test_captions_are_trusted_the_more_the_more_photos_have_the_word(words: WordTable) -> None:
    place = len(words.classes) + words.captions - 1
    often, seldom, never = (words.embedding(word)[place] for word in ("dog", "cat", "zebra"))
    assert 0.99 < often <= 1 and never == pytest.approx(0.2, abs=1e-3)
    assert never < seldom < often


def test_shipped_surroundings_are_those_of_the_table(words: WordTable) -> None:
    assert sorted(words.surroundings) == load_tool("make_starter_words").read_surroundings(FOLDER)
    assert all(words.resolve(word) == word for word in words.surroundings)


def test_images_of_a_batch_do_not_meet(model: StarterModel) -> None:
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    together = model.encode_image(pixels).embedding
    alone = torch.cat([model.encode_image(pixels[i : i + 1]).embedding for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_everything_it_needs_is_small(model: StarterModel) -> None:
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    assert size < 60e6
    assert model.card.kind == "starter"
    assert "not an OVSegmentor" in model.card.description


def test_the_card_tells_what_is_true() -> None:
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((pictures/[^)]+)\)", card)
    assert sorted(pictures) == sorted(f"pictures/{p.name}" for p in (FOLDER / "pictures").iterdir())
    words = WordTable()
    for heading in ("Training data", "licence", "Scores", "Failures"):
        assert heading in card
    missing = re.search(r"\*\*No class at all\*\*: ([^.]+)\.", card)
    assert missing is not None
    nothing = re.split(r",\s+", missing.group(1))
    assert len(nothing) == 8
    assert [word for word in nothing if words.resolve(word) is not None] == []
    coco = ClassList.vocabulary("coco").names
    assert {entry.phrase for entry in words.unknown(coco)} <= set(nothing)
