"""Graphs against the models they stand for, in torch; no file is written, but for one slow test."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.export.export import ExportOptions, export_loaded
from ovseg.export.graphs import (
    NO_BACKGROUND,
    ClipTextGraph,
    DenseClipGraph,
    GroupingGraph,
)
from ovseg.export.source import clip_tokenizer, source_of
from ovseg.export.starter_graphs import StarterGraph
from ovseg.inference.groups import nearest_position, regions
from ovseg.models.clip.model import DenseClip
from ovseg.models.clip.names import parse_clip_name
from ovseg.models.interface import GroupedImage, SegmentationModel
from ovseg.models.starter.model import StarterModel
from tests.export.conftest import ONE
from tests.export.models import tiny_predictor
from tests.inference.one_image import label_map
from tests.models.clip.tiny import write_folder


@pytest.fixture
def clip(tmp_path: Path) -> DenseClip:
    """A tiny CLIP whose learned grid is 4×4."""
    return DenseClip.load(f"clip:{write_folder(tmp_path / 'clip')}")


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def compare(
    model: SegmentationModel, graph: torch.nn.Module, pixels: torch.Tensor, threshold: float | None
) -> None:
    grouped = model.encode_image(pixels)
    width = grouped.embedding.shape[-1] + (0 if grouped.weights is None else 2)
    classes = noise(9, width).abs()
    bound = NO_BACKGROUND if threshold is None else threshold
    with torch.inference_mode():
        found = graph(pixels, classes, torch.tensor(bound))
    wanted = model.score(grouped, classes, threshold)
    torch.testing.assert_close(found.embedding, grouped.embedding, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.scores, wanted, atol=2e-5, rtol=1e-4)
    for index in range(len(pixels)):
        shares = None if grouped.assignment is None else grouped.assignment[index : index + 1]
        shape = (pixels.shape[-2], pixels.shape[-1])
        one = regions(GroupedImage(wanted[index : index + 1], grouped.grid, shares), shape)
        groups = torch.from_numpy(nearest_position(grouped.grid, shape)) if one is None else one[0]
        assert (found.groups[index] == groups).float().mean() > 0.999
        if not isinstance(graph, DenseClipGraph):  # its pixels have a rule of their own
            own = None if shares is None else shares[0]
            first = 1 if threshold is None else 0
            _, labels = label_map(wanted[index][:, first:], grouped.grid, shape, own)
            assert (found.labels[index] == labels + first).float().mean() > 0.999


@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (32, 224)])
@pytest.mark.parametrize("threshold", [0.3, None])
def test_starter(shape: tuple[int, int], threshold: float | None) -> None:
    model = StarterModel()
    compare(model, StarterGraph(model.reader).eval(), noise(2, 3, *shape), threshold)


@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (32, 48)])
@pytest.mark.parametrize("threshold", [0.3, None])
def test_ovsegmentor(shape: tuple[int, int], threshold: float | None) -> None:
    model = tiny_predictor()
    compare(model, GroupingGraph(model.model).eval(), noise(2, 3, *shape), threshold)


@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (32, 48)])
@pytest.mark.parametrize("threshold", [0.3, None])
def test_dense_clip(clip: DenseClip, shape: tuple[int, int], threshold: float | None) -> None:
    """At its learned grid, too, where positions are not resized."""
    graph = DenseClipGraph(clip.network, clip.reading.scale).eval()
    compare(clip, graph, noise(2, 3, *shape), threshold)


@pytest.mark.parametrize("classes", [1, 3, 5, 12])
def test_few_and_many_classes(classes: int) -> None:
    """The five likeliest classes, where there may be fewer than five."""
    model = tiny_predictor()
    pixels, embeddings = noise(1, 3, 64, 64), noise(classes, 32)
    with torch.inference_mode():
        found = GroupingGraph(model.model)(pixels, embeddings, torch.tensor(0.5))
    wanted = model.score(model.encode_image(pixels), embeddings, 0.5)
    torch.testing.assert_close(found.scores, wanted, atol=1e-6, rtol=1e-5)


def test_clip_text_with_its_file_of_a_tokenizer(clip: DenseClip) -> None:
    from tokenizers import Tokenizer

    files, length, pad = clip_tokenizer(clip.tokenizer)
    tokenizer = Tokenizer.from_str(files["tokenizer.json"])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad)
    phrases = ["cat", "The Mother's 2nd café", "word " * 100]
    coded = tokenizer.encode_batch(phrases)
    ids = torch.tensor([one.ids for one in coded])
    mask = torch.tensor([one.attention_mask for one in coded])
    with torch.inference_mode():
        found = ClipTextGraph(clip.text_model)(ids, mask)
    wanted = clip.encode_text(phrases, ("{}",))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_faults_of_released_code_are_not_exported(tmp_path: Path) -> None:
    from ovseg.errors import ModelError
    from ovseg.models.clip.weights import load_clip

    folder = write_folder(tmp_path / "clip")
    name = parse_clip_name(f"clip:{folder},as_released=true")
    with pytest.raises(ModelError, match="cannot be exported"):
        source_of(DenseClip(load_clip(name), name))


@pytest.mark.slow
def test_dense_clip_as_onnx(clip: DenseClip, tmp_path: Path) -> None:
    done = export_loaded(clip, tmp_path / "out", ExportOptions(images=ONE, end_to_end=True))
    assert done.report.agreement >= 0.99
    assert {row.what for row in done.report.rows} == {"graph", "segmenter", "end-to-end"}
    assert np.isclose(done.report.text_difference or 0, 0, atol=1e-6)
