"""Talk2DINO's projections: read, described, fetched, converted, and used to segment."""

import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import timm
import torch
from open_clip import factory
from safetensors.torch import save_file

from ovseg.config.load import load_recipe
from ovseg.data.images import read_image
from ovseg.errors import DownloadError, ModelError, UsageError
from ovseg.files import sha256
from ovseg.inference.segmenter import Segmenter
from ovseg.models import registry
from ovseg.models.aligned import projections, talk2dino
from ovseg.models.checkpoint import read_info
from ovseg.models.description import describe
from ovseg.models.released_files import convert_released
from ovseg.models.tensor_files import read_tensors
from ovseg_cli.__main__ import run
from tests.conftest import ROOT
from tests.hostile_server import honest, serving
from tests.models.clip.tiny import TINY, write_folder

TOWER = "model.aligned.vision.tower=vit_tiny_patch16_224"
WIDTH, TEXT = 192, 16


def released(path: Path, **changes: torch.Tensor) -> Path:
    """A file of the authors' form, for towers of other widths."""
    torch.manual_seed(0)
    layers = {
        "linear_layer.weight": torch.randn(WIDTH, TEXT),
        "linear_layer.bias": torch.randn(WIDTH),
        "hidden_layers.0.weight": torch.randn(WIDTH, WIDTH) / 14,
        "hidden_layers.0.bias": torch.randn(WIDTH),
    }
    torch.save(OrderedDict(layers | changes), path)
    return path


def test_the_recipe_is_the_authors() -> None:
    recipe = load_recipe("talk2dino")
    aligned, model = recipe.model.aligned, recipe.model
    assert aligned is not None
    assert (model.embedding_width, model.text.encoder) == (768, "clip:ViT-B-16/openai")
    assert aligned.vision.tower == "vit_base_patch14_reg4_dinov2.lvd142m"
    assert (aligned.vision.image_size, aligned.vision.attention_scale) == (448, 0.125)
    text = aligned.text_projection
    assert (text.form, text.activation, text.hidden) == ("mlp", "tanh", 0)
    assert (text.normalise, text.dropout, aligned.position_projection.form) == (False, 0, "none")
    assert not aligned.position_projection.normalise
    assert not aligned.logits.learned and aligned.logits.scale == 1 / 0.07
    reading = aligned.reading
    assert (reading.scale, reading.clean, reading.threshold) == (1, 0.2, 0.55)
    assert (reading.window, reading.stride, reading.align_corners) == (448, 224, True)
    assert len(reading.templates) == 7


def test_a_projection_becomes_an_aligned_model_that_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {key: value for key, value in TINY.items() if key != "quick_gelu"}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-tiny", plain)
    clip = write_folder(tmp_path / "clip") / "open_clip_model.safetensors"
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    weights = tmp_path / "vit.safetensors"
    save_file({name: t.contiguous() for name, t in backbone.state_dict().items()}, weights)
    out = tmp_path / "talk2dino.safetensors"
    made = convert_released(
        released(tmp_path / "any.pth"),
        out,
        [
            f"model.aligned.vision.tower=vit_tiny_patch16_224@{weights}",
            f"model.text.encoder=clip:ViT-tiny/{clip}",
            "model.aligned.reading.window=64",
            "model.aligned.reading.stride=32",
            "model.aligned.reading.short_side=64",
        ],
    )
    assert (made.tensors, made.has_tokenizer) == (6, False)
    info = read_info(out)
    assert (info.model_class, info.licence) == ("AlignedModel", projections.LICENCE)
    model = registry.load_model(out, "cpu")
    found = model.encode_text(["cat"], ("{}",))
    t = model._features(["cat"])  # type: ignore[attr-defined]
    tensors = torch.load(tmp_path / "any.pth", weights_only=True)
    first = t @ tensors["linear_layer.weight"].T + tensors["linear_layer.bias"]
    second = first.tanh() @ tensors["hidden_layers.0.weight"].T + tensors["hidden_layers.0.bias"]
    torch.testing.assert_close(found, torch.nn.functional.normalize(second, dim=-1))
    image = read_image(ROOT / "examples" / "chelsea.png")
    result = Segmenter(model).segment(image, "cat,dog,grass")
    assert result.labels.shape == image.shape[:2]


def test_an_unknown_file_does_not_say_which_dino(tmp_path: Path) -> None:
    path = released(tmp_path / "any.pth")
    with pytest.raises(UsageError, match=r"add --set model\.aligned\.vision\.tower=NAME"):
        convert_released(path, tmp_path / "x.safetensors")
    described = describe(str(path))
    assert described["format"] == "released projection"
    assert described["model"] == {"vision": "not told by the file"}
    assert described["next"].endswith("--set model.aligned.vision.tower=NAME")
    assert (described["tensors"], described["licence"]) == (4, projections.LICENCE)


def test_old_names_of_the_second_layer_are_known(tmp_path: Path) -> None:
    tensors = torch.load(released(tmp_path / "new.pth"), weights_only=True)
    old = {name.replace("hidden_layers.0", "linear_layer2"): t for name, t in tensors.items()}
    torch.save(old, tmp_path / "old.pth")
    made = [tmp_path / f"{name}.safetensors" for name in ("new", "old")]
    for out in made:
        convert_released(out.with_suffix(".pth"), out, [TOWER])
    one, other = (read_tensors(out) for out in made)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_layers.1.weight": torch.ones(3)}, "this file has"),
        ({"hidden_layers.0.weight": torch.ones(3, 3)}, "do not fit each other"),
        ({"linear_layer.weight": torch.full((WIDTH, TEXT), torch.nan)}, "NaN or infinity"),
    ],
)
def test_files_that_make_no_sense(
    tmp_path: Path, changes: dict[str, torch.Tensor], message: str
) -> None:
    path = released(tmp_path / "any.pth", **changes)
    with pytest.raises(ModelError, match=message):
        convert_released(path, tmp_path / "x.safetensors", [TOWER])
    assert not (tmp_path / "x.safetensors").exists()


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`talk2dino-b`, as if its file was a small one at an address of this machine."""
    path = released(tmp_path / "any.pth")
    with serving(path.read_bytes(), honest) as server:
        entry = replace(projections.RELEASED["talk2dino-b"], sha256=sha256(path))
        monkeypatch.setattr(projections.ReleasedProjection, "address", server.url)
        table = MappingProxyType({"talk2dino-b": entry})
        for module in (projections, talk2dino, registry):
            monkeypatch.setattr(module, "RELEASED", table)
        yield server


def test_pull_fetches_checks_shows_the_licence_and_converts(
    known: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "pull", "talk2dino-b", "--json"]) == 0
    shown = capsys.readouterr()
    path = Path(json.loads(shown.out)["path"])
    assert projections.LICENCE in shown.err and projections.REPOSITORY in shown.err
    recipe = read_info(path).recipe
    assert recipe.model.embedding_width == WIDTH
    assert recipe.model.aligned is not None
    assert recipe.model.aligned.vision.tower == "vit_base_patch14_reg4_dinov2.lvd142m"
    asked = len(known.requests)
    assert run(["models", "pull", "talk2dino-b"]) == 0
    assert len(known.requests) == asked
    assert run(["models", "info", str(path)]) == 0
    shown = capsys.readouterr()
    assert "text_projection:" in shown.out and "group_tokens" not in shown.out


def test_pull_of_another_file_leaves_nothing(known: Any, own_cache: Path) -> None:
    known.body = known.body[:-1] + b"?"
    with pytest.raises(DownloadError, match="not the file that was released"):
        registry.pull(registry.find_entry("talk2dino-b"))
    assert list((own_cache / "models").glob("*.pth")) == []
    assert list((own_cache / "models").glob("*.safetensors")) == []


def test_list_shows_them_with_their_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list"]) == 0
    out = capsys.readouterr().out
    for name in projections.RELEASED:
        assert f"{name}  (aligned, 3.9 MB, not here)" in out
    assert out.count(projections.LICENCE) == 2


def test_the_addresses_are_of_the_commit_that_the_hashes_are_of() -> None:
    for entry in projections.RELEASED.values():
        assert entry.address.startswith(
            "https://raw.githubusercontent.com/lorebianchi98/Talk2DINO/"
        )
        assert entry.address.endswith(f"/weights/{entry.file}")
        assert len(entry.sha256) == 64
