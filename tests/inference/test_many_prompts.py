"""A thousand classes: labels do not hang on their order, nor on how many are asked for at once."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest

from ovseg.data.class_list import ClassList
from ovseg.inference import labels as labels_module
from ovseg.inference.protocol import own
from ovseg.inference.segmenter import Segmenter
from ovseg.models.interface import DenseReading, GroupedImage
from ovseg.models.scoring import aligned_scores, dense_clip_scores, ovsegmentor_scores
from tests.inference.fakes import ColourModel

MANY = 1000
WIDTH = 16


def vector(phrase: str) -> np.ndarray:
    """Of unit length, the same whenever it is asked for."""
    drawn = np.random.default_rng(crc32(phrase.encode())).normal(size=WIDTH)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


class Many(ColourModel):
    """Positions and groups with vectors of their own, compared as a family compares them."""

    family = ""
    threshold = 1e-6

    def encode_image(self, pixels: np.ndarray) -> GroupedImage:
        grid = pixels.shape[2] // 4, pixels.shape[3] // 4
        count = grid[0] * grid[1]
        draw = np.random.default_rng(0)
        found = draw.normal(size=(len(pixels), count, WIDTH)).astype(np.float32)
        found /= np.linalg.norm(found, axis=-1, keepdims=True)
        if self.family != "groups":
            return GroupedImage(found, grid)
        shares = draw.random((len(pixels), 5, count)).astype(np.float32)
        return GroupedImage(found[:, :5], grid, shares, found[:, :5].mean(axis=1))

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        return np.stack([vector(phrase) for phrase in phrases])

    def score(
        self, grouped: GroupedImage, class_embeddings: np.ndarray, threshold: float | None
    ) -> np.ndarray:
        if self.family == "groups":
            return ovsegmentor_scores(
                grouped.embedding, grouped.image_embedding, class_embeddings, 10.0, threshold
            )
        if self.family == "aligned":
            return aligned_scores(grouped.embedding, class_embeddings, 10.0, 0.0, threshold)
        return dense_clip_scores(grouped.embedding, class_embeddings, 10.0, threshold)


def model_of(family: str) -> Many:
    model = Many()
    model.family = family
    if family in ("dense", "constant"):
        rule = "probability" if family == "dense" else "constant"
        model.reading = DenseReading(10.0, background=("sky", "road"), rule=rule)  # type: ignore[attr-defined]
    return model


FAMILIES = ("dense", "constant", "aligned", "groups")


def names_of(model: Many, words: list[str], **options: object) -> np.ndarray:
    """The class of each pixel by name, an empty one for the background."""
    image = np.random.default_rng(1).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    result = Segmenter(model).segment(image, ClassList.of(words), short_side=24, **options)
    return np.array(["", *words])[result.labels]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options", [{}, {"window": "16/8"}, {"refine": "guided"}, {"refine": "lposs"}]
)
def test_the_order_of_a_thousand_does_not_matter(
    family: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch, own_cache: object
) -> None:
    words = [f"word {number}" for number in range(MANY)]
    turned = words[::-1]
    model = model_of(family)
    first = names_of(model, words, **options)
    assert len(np.unique(first)) > (0 if family == "groups" else 10)
    np.testing.assert_array_equal(first, names_of(model, turned, **options))
    monkeypatch.setattr(labels_module, "PIECE", 24 * 36 * 7)  # seven maps at once
    np.testing.assert_array_equal(first, names_of(model, words, **options))


@pytest.mark.parametrize("family", ["dense", "constant", "aligned"])
def test_of_those_that_win_nothing_none_is_missed(family: str, own_cache: object) -> None:
    """Without a background the winners alone win again. OVSegmentor's rule is of all classes."""
    words = [f"word {number}" for number in range(MANY)]
    model = model_of(family)
    first = names_of(model, words, background=False)
    np.testing.assert_array_equal(
        first, names_of(model, sorted(set(first.ravel())), background=False)
    )


def test_phrases_are_embedded_alike_alone_and_among_many(own_cache: object) -> None:
    model = model_of("dense")
    segmenter = Segmenter(model)
    words = ClassList.of([f"word {number}" for number in range(MANY)])
    many = segmenter.labeller(words, own(background=False))._embeddings
    alone = Segmenter(model).labeller(ClassList.of(["word 7"]), own(background=False))._embeddings
    np.testing.assert_array_equal(many[7], alone[0])
