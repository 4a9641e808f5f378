"""Caption-trained models exported: towers of transformers and timm, and what runs without torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch

pytest.importorskip("transformers.models.tipsv2")

from ovseg.data.images import read_image
from ovseg.errors import ModelError
from ovseg.export.export import ExportOptions, export_loaded
from ovseg.export.source import source_of
from ovseg.inference.segmenter import Segmenter
from ovseg.models.exported import read_exported
from ovseg.models.interface import ModelCard
from ovseg.models.towers.caption_tower import CaptionTower
from ovseg.models.towers.dinotxt import DinoTxtText, DinoTxtVision, PatchText, VisionHead
from ovseg.models.towers.dinotxt_files import dinotxt_model
from ovseg.models.towers.groupvit import read_groupvit
from ovseg.models.towers.tips import read_tips
from tests.export.conftest import ONE
from tests.models.towers.tiny import write_groupvit, write_tips


def small_dinotxt() -> CaptionTower:
    """Two blocks of a DINOv2 with registers, and small towers behind it."""
    torch.manual_seed(0)
    backbone = timm.create_model(
        "vit_small_patch14_reg4_dinov2", num_classes=0, dynamic_img_size=True, depth=2, img_size=98
    )
    text = DinoTxtText(width=64, heads=1, layers=1, embedding=64)
    torch.nn.init.normal_(text.backbone.positional_embedding)
    vision = DinoTxtVision(backbone, VisionHead(384, 6, blocks=1, projected=32)).eval()
    card = ModelCard("small", "dinotxt", "random weights", "CC0-1.0", "0" * 64)
    texts = PatchText(text, open_clip.get_tokenizer("ViT-B-16"))
    return dinotxt_model(vision, texts, card, ("a {}.",))


def model_of(family: str, folder: Path) -> Any:
    """Of random weights, spread as a trained model's are."""
    if family == "tipsv2":
        model: Any = read_tips(write_tips(folder), "tips")
        parts = [model.towers.vision, model.towers.text.model]
    elif family == "dinotxt":
        model = small_dinotxt()
        parts = [model.towers.vision.head, model.towers.text.model]
    else:
        write_groupvit(folder)
        model = read_groupvit(folder, folder / "model.safetensors", "groupvit")
        parts = [model.model]
    torch.manual_seed(0)
    for part in parts:
        for parameter in part.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    if family == "groupvit":  # small pictures, to save time
        model.preprocessing = replace(model.preprocessing, short_side=96, window=64, stride=32)
        return model
    pixels = replace(model.preprocessing, short_side=120, window=90, stride=45)
    return CaptionTower(replace(model.towers, preprocessing=pixels))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["tipsv2"])
def test_an_export_gives_the_models_labels(family: str, tmp_path: Path) -> None:
    model = model_of(family, tmp_path / "model")
    made = export_loaded(model, tmp_path / "export", ExportOptions(images=ONE))
    assert made.report.agreement > 0.99
    assert made.report.text_difference is not None and made.report.text_difference < 1e-4
    exported = read_exported(made.folder, "cpu")
    assert exported.card.kind == family
    image = read_image(ONE[0])
    for side, window in ((100, "none"), (90, "75/40")):  # no multiples of a patch
        if family == "groupvit":
            side, window = (96, "none") if window == "none" else (90, "64/32")
        rule: dict[str, Any] = {"short_side": side, "window": window, "templates": ("{}", "a {}.")}
        wanted = Segmenter(model).segment(image, "cat,dog;puppy,grass", **rule)
        found = Segmenter(exported).segment(image, "cat,dog;puppy,grass", **rule)
        assert (wanted.labels == found.labels).mean() > 0.99
        np.testing.assert_allclose(found.scores, wanted.scores, atol=2e-3)


def test_a_graph_takes_images_of_any_size(tmp_path: Path) -> None:
    """The module that is exported, against the model itself, without an exporter between."""
    for family, shapes in (
        ("tipsv2", ((56, 56), (57, 90), (112, 80))),
        ("dinotxt", ((98, 98), (99, 130))),
        ("groupvit", ((64, 64), (64, 96), (112, 80))),
    ):
        model = model_of(family, tmp_path / family)
        graph = source_of(model).image
        words = model.encode_text(["cat", "dog"], ["{}"])
        for shape in shapes:
            pixels = torch.rand(2, 3, *shape)
            with torch.inference_mode():
                found = graph(pixels, words, torch.tensor(0.5))
            wanted = model.encode_image(pixels)
            torch.testing.assert_close(found.embedding, wanted.embedding, atol=1e-5, rtol=1e-4)
            assert found.labels.shape == (2, *shape)


def test_no_graph_for_whole_photos_that_pillow_resizes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="export it without --end-to-end"):
        options = ExportOptions(images=ONE, end_to_end=True)
        export_loaded(model_of("tipsv2", tmp_path / "model"), tmp_path / "export", options)
