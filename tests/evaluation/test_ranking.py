"""Classification and retrieval, on images whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.errors import DataError
from ovseg.evaluation.bootstrap import share_interval
from ovseg.evaluation.ranking import classify, read_captions, read_image_folder, retrieve
from ovseg.models.interface import GroupedImage
from tests.evaluation.fakes import FakeModel
from tests.evaluation.sets import tiny

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


class ColourModel(FakeModel):
    """Embeds an image by its mean colour and a text by the colours it names."""

    def __init__(self) -> None:
        super().__init__(grouped=False)

    def encode_image(self, pixels: torch.Tensor) -> GroupedImage:
        mean = pixels.mean((2, 3)) + 2
        return GroupedImage(mean[:, None], (1, 1), None, mean)

    def encode_text(self, phrases, templates) -> torch.Tensor:
        return torch.tensor([[float(name in phrase) for name in COLOURS] for phrase in phrases])


def coloured(path: Path, name: str) -> None:
    tiny.photo(path, np.full((30, 40, 3), COLOURS[name], np.uint8))


def test_classification_counts_hits(tmp_path: Path) -> None:
    for folder, name in (("red", "red"), ("green", "green"), ("blue", "green")):
        coloured(tmp_path / folder / "a.png", name)
    data = read_image_folder(tmp_path)
    assert data.words.names == ("blue", "green", "red")
    result = classify(ColourModel(), data)
    assert (result.images, result.classes) == (3, 3)
    assert result.top1.value == pytest.approx(2 / 3)
    assert result.top5.value == 1
    assert result.top1.interval.low < 2 / 3 < result.top1.interval.high


def test_names_from_a_mapping_of_synsets(tmp_path: Path) -> None:
    coloured(tmp_path / "val/n01/a.png", "red")
    coloured(tmp_path / "val/n02/a.png", "blue")
    coloured(tmp_path / "val/n03/a.png", "blue")
    tiny.text(tmp_path / "LOC_synset_mapping.txt", "n01 red, crimson\nn02 blue\nn03 blue\n")
    data = read_image_folder(tmp_path)
    assert data.words.synonyms == (("red", "crimson"), ("blue",), ("blue 2",))
    assert classify(ColourModel(), data).top1.value == pytest.approx(2 / 3)
    tiny.text(tmp_path / "LOC_synset_mapping.txt", "n01 red\n")
    with pytest.raises(DataError, match="has no line for n02"):
        read_image_folder(tmp_path)


def test_a_folder_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one folder of images per class"):
        read_image_folder(tmp_path)


def test_retrieval_from_a_table(tmp_path: Path) -> None:
    rows = [("red.png", "a red wall"), ("green.png", "a green wall"), ("blue.png", "red again")]
    for file, _ in rows:
        coloured(tmp_path / file, file.removesuffix(".png"))
    tiny.text(tmp_path / "captions.tsv", "".join(f"{file}\t{text}\n" for file, text in rows))
    result = retrieve(ColourModel(), read_captions(tmp_path))
    assert (result.images, result.texts) == (3, 3)
    assert result.image_to_text[1].value == pytest.approx(2 / 3)
    assert result.text_to_image[1].value == pytest.approx(2 / 3)
    assert result.text_to_image[5].value == 1


def test_retrieval_from_coco_takes_any_caption_of_the_image(tmp_path: Path) -> None:
    coloured(tmp_path / "val2017/1.png", "red")
    coloured(tmp_path / "val2017/2.png", "green")
    document = {
        "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
        "annotations": [
            {"image_id": 1, "caption": "something  green"},
            {"image_id": 1, "caption": "red"},
            {"image_id": 2, "caption": "green\n"},
        ],
    }
    tiny.text(tmp_path / "annotations/captions_val2017.json", json.dumps(document))
    data = read_captions(tmp_path)
    assert data.texts == ("something green", "red", "green")
    result = retrieve(ColourModel(), data)
    assert result.image_to_text[1].value == 0.5  # the first green caption is the other image's
    assert result.image_to_text[5].value == 1
    assert result.text_to_image[1].value == pytest.approx(2 / 3)


def test_captions_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"annotations_trainval2017.zip, 241 MB"):
        read_captions(tmp_path)
    tiny.text(tmp_path / "captions.tsv", "absent.png\ta wall\n")
    with pytest.raises(DataError, match=r"absent\.png: no such image"):
        read_captions(tmp_path)


def test_the_interval_of_a_share() -> None:
    hits = np.arange(400) < 100
    interval = share_interval(hits)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert interval.low == pytest.approx(0.25 - half, abs=0.01)
    assert interval.high == pytest.approx(0.25 + half, abs=0.01)
