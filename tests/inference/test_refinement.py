"""Every refinement on every kind of model, through the one way from pixels to labels."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from ovseg.data.class_list import ClassList
from ovseg.inference.encode import encode_views
from ovseg.inference.protocol import own
from ovseg.inference.refine.propagation import LabelPropagation
from ovseg.inference.refinement import RefinedView, Refinement, at_positions, patch_places
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.views import Box, Padding, View, views_of
from ovseg.models.clip.guide import GuideModel, GuideNetwork, load_guide
from ovseg.models.interface import GroupedImage
from ovseg.models.normalisation import IMAGENET
from ovseg.models.registry import load_model
from tests.evaluation.fakes import FakeModel
from tests.inference.fakes import ColourModel

CHAINS = (
    "affinity",
    "lposs",
    "lposs+",
    "lposs+half",
    "pamr",
    "guided",
    "affinity,lposs,pamr",
    "lposs+,guided",
)


def photo(height: int = 32, width: int = 48) -> np.ndarray:
    """Red on the left, green on the right, with noise."""
    image = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
    image[:, : width // 2, 0] += 150
    image[:, width // 2 :, 1] += 150
    return image


@pytest.mark.parametrize("refine", CHAINS)
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("window", ["none", "16/8"])
def test_a_model_of_positions(refine: str, background: bool, window: str) -> None:
    segmenter = Segmenter(ColourModel())
    options = {"background": background, "window": window, "pamr_dilations": (1, 2)}
    plain = segmenter.segment(photo(), "red,green", **options)
    found = segmenter.segment(photo(), "red,green", refine=refine, **options)
    assert np.isfinite(found.scores).all()
    assert (found.scores != plain.scores).any()
    assert set(np.unique(found.labels)) <= {0, 1, 2}
    if not background:
        assert (found.labels[:, :20] == 1).all() and (found.labels[:, -20:] == 2).all()


@pytest.mark.parametrize("refine", CHAINS)
@pytest.mark.parametrize("rule", ["model", "constant", "probability"])
def test_a_model_of_groups(refine: str, rule: str) -> None:
    segmenter = Segmenter(FakeModel(grouped=True))
    options = {"rule": rule, "scale": 5.0, "flip": True, "pamr_dilations": (1, 2)}
    found = segmenter.segment(photo(), "red,green;blue", refine=refine, **options)
    assert np.isfinite(found.scores).all()
    assert found.labels.shape == (32, 48)


def test_the_starter_is_refined_without_torch_and_with_it() -> None:
    for in_torch in (False, True):
        segmenter = Segmenter(load_model("starter", "cpu", in_torch=in_torch))
        plain = segmenter.segment(photo(), "cat,dog", short_side=64)
        found = segmenter.segment(photo(), "cat,dog", short_side=64, refine="lposs+,guided")
        assert (found.scores != plain.scores).any() and np.isfinite(found.scores).all()


@pytest.mark.parametrize("refine", ["lposs", "lposs+", "affinity", "guided"])
def test_thresholds_are_those_of_separate_runs(refine: str) -> None:
    model = FakeModel(grouped=True)
    protocol = own(refine=refine)
    segmenter = Segmenter(model)
    labeller = segmenter.labeller(ClassList.parse("red,green"), protocol)
    views = encode_views(model, labeller.views(photo()))
    swept = labeller.labels_at(views, (32, 48), [0.2, 0.5, 0.8])
    for threshold, labels in zip((0.2, 0.5, 0.8), swept, strict=True):
        (alone,) = labeller.labels_at(views, (32, 48), [threshold])
        np.testing.assert_array_equal(np.asarray(labels), np.asarray(alone))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny DINO as timm saves it, by name and file."""
    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    path = tmp_path_factory.mktemp("dino") / "tiny.safetensors"
    save_file(timm.create_model(name, num_classes=0).state_dict(), path)
    return f"{name}@{path}"


@pytest.mark.parametrize("step", ["affinity", "lposs", "lposs+", "lposs+half"])
@pytest.mark.parametrize("window", ["none", "40/20"])
def test_a_named_backbone_takes_its_own_grid(step: str, window: str, backbone: str) -> None:
    """Windows of 40 pixels are no multiple of its patches: it sees them at 32 or 48."""
    segmenter = Segmenter(ColourModel())
    options = {"window": window, "short_side": 40, "background": False}
    found = segmenter.segment(photo(40, 60), "red,green", refine=f"{step}={backbone}", **options)
    own_features = segmenter.segment(photo(40, 60), "red,green", refine=step, **options)
    assert (found.scores != own_features.scores).any()
    assert (found.labels[:, :10] == 1).all() and (found.labels[:, -10:] == 2).all()


def test_a_backbone_is_loaded_once(backbone: str) -> None:
    model = ColourModel()
    protocol = own(refine=f"lposs={backbone}").for_model(model)
    first, second = (Refinement(model, protocol).guides for _ in range(2))
    assert list(first.values()) == list(second.values())


def test_values_and_output_of_a_backbone_differ(backbone: str) -> None:
    network = load_guide(backbone, IMAGENET)
    pixels = torch.randn(2, 3, 48, 64)
    output, values = (GuideModel(network, each).encode_image(pixels) for each in (False, True))
    assert output.grid == values.grid == (3, 4)
    assert output.embedding.shape == values.embedding.shape == (2, 12, 192)
    assert not torch.allclose(output.embedding, values.embedding)


def test_rotary_backbones_have_values_too() -> None:
    eva = timm.create_model("vit_small_patch16_dinov3", num_classes=0, depth=1)
    assert GuideNetwork(eva, IMAGENET).values(torch.randn(1, 3, 32, 48)).shape == (1, 384, 2, 3)


def test_groups_count_where_they_are_strongest() -> None:
    shares = np.array([[[0.9, 0.2, 0.4], [0.1, 0.8, 0.6]]])
    grouped = GroupedImage(np.zeros((1, 2, 4)), (1, 3), shares)
    scores = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    assert at_positions(scores, grouped).tolist() == [[[1, 2], [3, 4], [3, 4]]]


def test_places_of_patches_are_those_in_the_image() -> None:
    view = View(
        np.zeros((3, 8, 14), np.float32),
        (Box(0, 0, 8, 8), Box(0, 6, 8, 8)),
        Padding((12, 12), above=2, before=2),
    )
    places = patch_places(view, (3, 3))
    assert places[:4].tolist() == [[-2, -2], [-2, 2], [-2, 6], [2, -2]]
    assert places[9:11].tolist() == [[-2, 4], [-2, 8]]


def test_the_same_place_in_two_windows_is_strongly_linked() -> None:
    """A graph over all windows: what one window is sure of reaches the others."""
    model = ColourModel()
    protocol = own(
        refine="lposs", window="16/8", lposs=replace(LabelPropagation(), neighbours=400)
    ).for_model(model)
    (view,) = views_of(photo(16, 24), protocol, model.preprocessing)
    (encoded,) = encode_views(model, [view])
    refined = RefinedView(Refinement(model, protocol), encoded)
    scores = np.zeros((len(view.boxes), 16, 1))
    scores[0] = 1.0
    spread = refined.maps(scores, (16, 24), direct=False).piece(slice(None))
    assert (spread > 0).all()
