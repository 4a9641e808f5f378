"""The one way from pixels to labels, with a dense CLIP small enough for a test."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.data.class_list import ClassList
from ovseg.errors import UsageError
from ovseg.inference.encode import encode_views
from ovseg.inference.maps import PositionMaps
from ovseg.inference.protocol import own
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.views import lay_windows
from ovseg.models.clip.model import DenseClip
from tests.models.clip.tiny import write_folder

CLASSES = ClassList.parse("cat,dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def segmenter(folder: Path) -> Segmenter:
    return Segmenter.from_pretrained(f"clip:{folder}", "cpu")


def photo(height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_photo_gets_labels_of_its_size(segmenter: Segmenter) -> None:
    result = segmenter.segment(photo(), "cat,dog;puppy,zebra")
    assert result.labels.shape == result.scores.shape == result.groups.shape == (60, 90)
    assert result.labels.max() <= 3
    assert ((result.scores > 0) & (result.scores <= 1)).all()
    assert result.group_scores.shape[1] == 4
    assert result.groups.max() < len(result.group_scores)


def test_no_background_means_none(segmenter: Segmenter) -> None:
    result = segmenter.segment(photo(), "cat,dog", background=False)
    assert set(np.unique(result.labels)) <= {1, 2}
    everything = segmenter.segment(photo(), "cat,dog", threshold=1.0)
    assert (everything.labels == 0).all()


def test_one_pass_agrees_with_torch_written_out(segmenter: Segmenter) -> None:
    """Cosines, bilinear to the image, softmax over words and background, best synonym."""
    model, image = segmenter.model, photo()
    assert isinstance(model, DenseClip)
    protocol = own(window="none", threshold=0.05)
    result = segmenter.segment(image, "cat;kitten,dog", protocol)
    labeller = segmenter.labeller(ClassList.parse("cat;kitten,dog"), protocol)
    words = labeller.protocol.background_words
    owner = torch.tensor([0] * len(words) + [1, 1, 2])
    text = model.encode_text([*words, "cat", "kitten", "dog"], model.templates)
    (view,) = labeller.views(image)
    grouped = model.encode_image(model.from_numpy(view.pixels[None]))
    cosines = (grouped.embedding[0] @ text.T).T.reshape(1, -1, *grouped.grid)
    maps = F.interpolate(cosines, size=image.shape[:2], mode="bilinear")[0]
    p = (maps * model.reading.scale).softmax(dim=0)
    by_class = torch.stack([p[owner == c].amax(dim=0) for c in range(3)])
    labels = by_class.argmax(dim=0)
    labels[by_class.amax(dim=0) < 0.05] = 0
    assert (labels.numpy() == result.labels).mean() > 0.999
    assert np.abs(result.scores - by_class.amax(dim=0).numpy()).max() < 1e-5


def test_windows_are_averaged(segmenter: Segmenter) -> None:
    model = segmenter.model
    assert isinstance(model, DenseClip)
    pixels = torch.randn(3, 80, 112)
    text = model.encode_text(["cat", "dog", "tree"], ["{}"])
    view = lay_windows(pixels.numpy(), own(window=64, stride=32))
    (encoded,) = encode_views(model, [view], batch=2)
    scores = encoded.grouped.embedding @ text.T
    maps = PositionMaps.of(scores, encoded, (80, 112), direct=False)
    total, times = torch.zeros(3, 80, 112), torch.zeros(80, 112)
    for box in view.boxes:
        rows, columns = box.slices
        grouped = model.encode_image(pixels[None, :, rows, columns])
        cosines = (grouped.embedding[0] @ text.T).T.reshape(1, 3, *grouped.grid)
        total[:, rows, columns] += F.interpolate(cosines, size=(64, 64), mode="bilinear")[0]
        times[rows, columns] += 1
    every = maps.piece(slice(None))
    torch.testing.assert_close(every, total / times, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps.piece(slice(1, 2)), every[1:2])
    middles = np.arange(5) * 16 + 8, np.arange(7) * 16 + 8
    at = maps.at_view(*middles)
    torch.testing.assert_close(at.permute(2, 0, 1), every[:, 8::16, 8::16], atol=1e-5, rtol=1e-5)


def test_refinement_is_of_the_photo(segmenter: Segmenter) -> None:
    plain = segmenter.segment(photo(), "cat,dog")
    refined = segmenter.segment(photo(), "cat,dog", refine="pamr")
    assert (plain.labels != refined.labels).any() or not np.allclose(plain.scores, refined.scores)
    with pytest.raises(UsageError, match="choose none, affinity"):
        segmenter.segment(photo(), "cat,dog", refine="crf")


def test_any_model_is_refined() -> None:
    from tests.inference.fakes import ColourModel

    image = photo(16, 32)
    segmenter = Segmenter(ColourModel())
    plain, refined = (segmenter.segment(image, "red", refine=name) for name in ("none", "pamr"))
    assert (plain.scores != refined.scores).any()


def test_a_very_long_photo(segmenter: Segmenter) -> None:
    assert segmenter.segment(photo(4, 400), "cat,dog").labels.shape == (4, 400)


def test_background_words_that_are_asked_for_are_left_out(segmenter: Segmenter) -> None:
    words = segmenter.labeller(ClassList.parse("Sky,cat;kitten")).protocol.background_words
    assert "wall" in words and "sky" not in words
    assert segmenter.labeller(CLASSES, background=False).protocol.background_words == ()


def test_text_is_the_same_with_and_without_its_padding(segmenter: Segmenter) -> None:
    """Cutting off what a causal tower never reads changes nothing."""
    model = segmenter.model
    assert isinstance(model, DenseClip)
    templates = ("a photo of a {}.", "{}", "art of many {} in the rain, by night")
    found = model.encode_text(["cat", "very long fire truck"], templates)
    clip = model._text_model
    for row, phrase in enumerate(["cat", "very long fire truck"]):
        tokens = model._tokenizer([template.format(phrase) for template in templates])
        assert tokens.shape[1] == 77
        each = clip.encode_text(tokens, normalize=True)
        expected = F.normalize(each.mean(dim=0), dim=0)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


def test_the_models_own_templates_are_the_eighty(segmenter: Segmenter) -> None:
    templates = segmenter.model.templates
    assert len(templates) == len(set(templates)) == 80
    assert all(template.count("{}") == 1 for template in templates)
    assert "a photo of many {}." in templates
