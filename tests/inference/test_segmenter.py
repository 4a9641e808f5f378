"""The segmenter: from files and words to label maps."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ovseg
from ovseg.data.class_list import ClassList
from ovseg.errors import DataError, UsageError
from ovseg.inference.inputs import Failure
from ovseg.inference.protocol import own
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.text import best_synonym
from tests.inference.fakes import ColourModel


def halves(width: int = 32, height: int = 16) -> np.ndarray:
    """Red on the left, blue on the right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 255
    image[:, width // 2 :, 2] = 255
    return image


@pytest.fixture
def segmenter() -> Segmenter:
    return Segmenter(ColourModel())


def test_regions_get_their_labels(segmenter: Segmenter) -> None:
    result = segmenter.segment(halves(), "green,blue,red")
    assert result.classes == ("background", "green", "blue", "red")
    assert (result.labels[:, :14] == 3).all()
    assert (result.labels[:, 18:] == 2).all()
    assert result.labels.dtype == np.uint16


def test_what_no_class_claims_is_background(segmenter: Segmenter) -> None:
    result = segmenter.segment(halves(), "red")
    assert (result.labels[:, 18:] == 0).all()
    assert (segmenter.segment(halves(), "red", background=False).labels == 1).all()


def test_threshold(segmenter: Segmenter) -> None:
    dim = halves() // 4
    assert (segmenter.segment(dim, "red").labels == 0).all()
    assert (segmenter.segment(dim, "red", threshold=0.1).labels[:, :14] == 1).all()


def test_synonyms_share_a_label(segmenter: Segmenter) -> None:
    result = segmenter.segment(halves(), ["warm; red", "green", "cold;blue"])
    assert result.classes == ("background", "warm", "green", "cold")
    assert set(np.unique(result.labels)) == {1, 3}


def test_best_synonym_takes_the_maximum() -> None:
    classes = ClassList.of(["a;b", "c", "d;e;f"])
    scores = np.array([[0.0, 1, 2, 3, 9, 7, 8]])
    assert best_synonym(scores, classes).tolist() == [[0, 2, 3, 9]]


def test_result_has_the_size_of_the_image(segmenter: Segmenter) -> None:
    result = segmenter.segment(halves(50, 33), "red")
    assert result.labels.shape == result.scores.shape == result.groups.shape == (33, 50)
    assert result.image.shape == (33, 50, 3)


def test_pillow_images_and_files(segmenter: Segmenter, tmp_path: Path) -> None:
    Image.fromarray(halves()).save(tmp_path / "a.png")
    from_file = segmenter.segment(tmp_path / "a.png", "red")
    from_pillow = segmenter.segment(Image.fromarray(halves()), "red")
    assert np.array_equal(from_file.labels, from_pillow.labels)


def test_a_list_gives_a_list(segmenter: Segmenter) -> None:
    results = segmenter.segment([halves(), Image.fromarray(halves(40, 20))], "red")
    assert [result.labels.shape for result in results] == [(16, 32), (20, 40)]
    assert isinstance(results, list)
    assert segmenter.segment([], "red") == []


def test_an_iterator_gives_one_that_takes_images_when_asked(segmenter: Segmenter) -> None:
    taken: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for number in range(3):
            taken.append(number)
            yield halves()

    results = segmenter.segment(frames(), "red")
    assert taken == []
    assert next(results).labels.shape == (16, 32)
    assert taken == [0]
    assert len(list(results)) == 2


def test_what_is_wrong_is_said_at_once_or_by_number(segmenter: Segmenter) -> None:
    with pytest.raises(UsageError, match="empty"):
        segmenter.segment(iter([halves()]), "")
    with pytest.raises(UsageError, match="image 1 of those given: NoneType is no image"):
        segmenter.segment([halves(), None], "red")


@pytest.mark.parametrize(
    "classes",
    [[["warm", "red"], "blue"], {"warm": ["red"], "blue": None}, {"warm": "red", "blue": ()}],
)
def test_synonyms_by_lists_and_dicts(segmenter: Segmenter, classes: Any) -> None:
    result = segmenter.segment(halves(), classes)
    assert result.classes == ("background", "warm", "blue")
    assert set(np.unique(result.labels)) == {1, 2}


def test_unknown_words_are_logged(segmenter: Segmenter, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        segmenter.segment(halves(), "red,mauve")
    assert "'mauve'" in caplog.text
    assert "nearest that it knows: red" in caplog.text


def test_many_files_in_batches_with_failures_between(segmenter: Segmenter, tmp_path: Path) -> None:
    sizes = [(32, 16), (32, 16), (16, 16), (32, 16)]
    paths = []
    for index, (width, height) in enumerate(sizes):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(halves(width, height)).save(paths[-1])
    paths.insert(1, tmp_path / "missing.png")
    results = list(segmenter.segment_files(paths, "red,blue", batch_size=8))
    kinds = [item.path if isinstance(item, Failure) else item[0] for item in results]
    assert kinds == paths
    failure = results[1]
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, DataError)


def test_on_a_processor_each_image_is_encoded_alone(segmenter: Segmenter, tmp_path: Path) -> None:
    """So that an image has the same labels alone and among others."""
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        Image.fromarray(halves()).save(path)
    list(segmenter.segment_files(paths, "red", batch_size=3))
    assert isinstance(segmenter.model, ColourModel)
    assert segmenter.model.batches == [1, 1, 1]


def test_elsewhere_images_of_one_shape_share_a_batch(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovseg.inference.encode._processor", lambda _: None)
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        Image.fromarray(halves()).save(path)
    list(segmenter.segment_files(paths, "red", batch_size=3))
    assert isinstance(segmenter.model, ColourModel)
    assert segmenter.model.batches == [3, 2]


def test_an_option_that_there_is_not_is_named(segmenter: Segmenter) -> None:
    with pytest.raises(UsageError, match="no such option: treshold"):
        segmenter.segment(halves(), "red", treshold=0.1)


def test_batches_change_nothing(tmp_path: Path) -> None:
    segmenter = ovseg.Segmenter.from_pretrained("starter", "cpu")
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for path in paths:
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    together = [item[1] for item in segmenter.segment_files(paths, "cat,dog") if item]
    alone = [segmenter.segment(path, "cat,dog") for path in paths]
    for one, other in zip(together, alone, strict=True):
        assert np.allclose(one.group_scores, other.group_scores, atol=1e-4)


def test_unknown_model_and_device() -> None:
    with pytest.raises(UsageError, match="did you mean starter"):
        Segmenter.from_pretrained("startr")
    with pytest.raises(UsageError, match="unknown device"):
        Segmenter.from_pretrained("starter", "tpu")


def test_changes_are_read_alike_with_and_without_a_protocol(segmenter: Segmenter) -> None:
    classes = ClassList.parse("red")
    changes = {"window": "8/4", "refine": "", "threshold": None}
    plain = segmenter.labeller(classes, **changes).protocol
    assert (plain.window, plain.stride, plain.refine) == (8, 4, "none")
    assert segmenter.labeller(classes, own(), **changes).protocol == plain
    refined = segmenter.labeller(classes, own(refine="pamr"), **changes).protocol
    assert refined.refine == "pamr", "an empty one leaves what there is"


def test_groups_are_scored_once_an_image(segmenter: Segmenter) -> None:
    calls = []
    score = segmenter.model.score
    segmenter.model.score = lambda *given: (calls.append(1), score(*given))[1]
    segmenter.segment(halves(), "red")
    assert len(calls) == 1
