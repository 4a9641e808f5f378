"""Caption-trained models from files as their authors publish them, and from where they lie."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers.models.tipsv2")

from transformers import AutoTokenizer, GroupViTModel, Tipsv2Model

from ovseg.errors import DownloadError, ModelError
from ovseg.inference.segmenter import Segmenter
from ovseg.models import registry
from ovseg.models.catalogue import CATALOGUE
from ovseg.models.registry import find_entry, is_cached, load_model, pull
from ovseg.models.towers import dinotxt_files, files, names
from ovseg.models.towers.caption_tower import stretched
from ovseg.models.towers.names import TOWERS, is_tower_name, parse_tower_name
from tests.hub_server import in_place_of_the_hub
from tests.models.towers.tiny import ARCHITECTURE, write_dinotxt, write_groupvit, write_tips


def photo(height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tips(tmp_path_factory.mktemp("tips"))


@pytest.fixture(scope="module")
def groupvit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_groupvit(tmp_path_factory.mktemp("groupvit"))


@pytest.fixture(scope="module")
def dinotxt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dinotxt(tmp_path_factory.mktemp("dinotxt"))


def test_every_name_is_in_the_catalogue() -> None:
    listed = {entry.name: entry for entry in CATALOGUE if entry.tower}
    assert set(listed) == set(TOWERS)
    for name, entry in listed.items():
        assert is_tower_name(name) and entry.size and entry.licence
        assert entry.kind == TOWERS[name].family
    assert parse_tower_name("tipsv2:a/b").folder == Path("a/b")
    assert not is_tower_name("clip-b16") and not is_tower_name("tipsv2-b14,head=x")


def test_tips_segments_by_the_values_of_its_last_block(tips: Path) -> None:
    model = load_model(f"tipsv2:{tips}", "cpu")
    assert model.preprocessing.resample == "bicubic" and len(model.templates) == 9
    pixels = torch.rand(2, 3, 56, 70)
    found = model.encode_image(pixels)
    assert found.grid == (4, 5) and found.embedding.shape == (2, 20, 32)
    reference = Tipsv2Model.from_pretrained(tips).eval().vision_model
    layer, seen = reference.encoder.layer[-1], {}
    handle = layer.register_forward_pre_hook(lambda _, given: seen.update(x=given[0]))
    with torch.inference_mode():
        reference(pixels)
        handle.remove()
        x = seen["x"]
        x = x + layer.layer_scale1(layer.attention.o_proj(layer.attention.v_proj(layer.norm1(x))))
        x = reference.layernorm(x + layer.layer_scale2(layer.mlp(layer.norm2(x))))[:, 2:]
    wanted = torch.nn.functional.normalize(x, dim=-1)
    torch.testing.assert_close(found.embedding, wanted, atol=1e-5, rtol=1e-5)
    result = Segmenter(model).segment(photo(), "cat,dog", short_side=56, window="56/28")
    assert result.labels.shape == (60, 90) and np.isfinite(result.scores).all()


def test_tips_text_is_transformers_own(tips: Path) -> None:
    model = load_model(f"tipsv2:{tips}", "cpu")
    reference, tokenizer = (
        Tipsv2Model.from_pretrained(tips).eval(),
        AutoTokenizer.from_pretrained(tips),
    )
    with torch.inference_mode():
        given = tokenizer(["a Cat.", "dog"], padding=True, return_tensors="pt")
        wanted = torch.nn.functional.normalize(reference.get_text_features(**given).pooler_output)
    found = model.encode_text(["Cat", "dog"], ["a {}."])[:1]
    torch.testing.assert_close(found, wanted[:1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        model.encode_text(["cat"], ["a {}."]), found, atol=1e-5, rtol=1e-5
    )  # small letters, whatever was asked


@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (112, 80)])
def test_groupvit_is_transformers_own_forward(groupvit: Path, shape: tuple[int, int]) -> None:
    model = load_model(f"groupvit:{groupvit}", "cpu")
    reference = GroupViTModel.from_pretrained(groupvit).eval()
    embeddings = reference.vision_model.embeddings
    forward = embeddings.forward
    embeddings.forward = lambda pixels: forward(pixels, interpolate_pos_encoding=True)
    pixels = torch.randn(2, 3, *shape)
    tokenizer = AutoTokenizer.from_pretrained(groupvit)
    phrases = ["cat", "dogs", "a"]
    given = tokenizer([f"a {each}." for each in phrases], padding=True, return_tensors="pt")
    with torch.inference_mode():
        wanted = reference(**given, pixel_values=pixels, output_segmentation=True)
    grouped = model.encode_image(pixels)
    words = model.encode_text(phrases, ["a {}."])
    torch.testing.assert_close(words, wanted.text_embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(grouped.image_embedding, wanted.image_embeds, atol=1e-5, rtol=1e-4)
    shares = grouped.assignment.reshape(2, -1, *grouped.grid)
    torch.testing.assert_close(grouped.assignment.sum(dim=1), torch.ones(2, shares[0, 0].numel()))
    resized = torch.nn.functional.interpolate(shares, size=shape, mode="bilinear")
    scores = model.scale**2 * grouped.embedding @ words.T  # [B, G, Q]
    found = torch.einsum("bgq,bghw->bqhw", scores, resized)
    torch.testing.assert_close(found, wanted.segmentation_logits, atol=1e-3, rtol=1e-4)


def test_groupvit_goes_the_way_of_all_models(groupvit: Path) -> None:
    segmenter = Segmenter(load_model(f"groupvit:{groupvit}", "cpu"))
    for refine in ("none", "lposs", "guided"):
        found = segmenter.segment(photo(), "cat,dog", short_side=64, window="none", refine=refine)
        assert found.labels.shape == (60, 90)


def test_dinotxt_from_its_authors_files(dinotxt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TOWERS["dinotxt-dinov2-l"]
    monkeypatch.setitem(TOWERS, "dinotxt-dinov2-l", _with_backbone(source))
    monkeypatch.setattr(dinotxt_files, "WIDTH_OF_A_HEAD", 64)
    model = load_model(f"dinotxt:{dinotxt}", "cpu")
    assert model.card.kind == "dinotxt" and len(model.templates) == 80
    grouped = model.encode_image(torch.randn(1, 3, 60, 84))  # 60 is no multiple of 14: 70
    assert grouped.grid == (5, 6) and grouped.embedding.shape == (1, 30, 32)
    assert model.encode_text(["cat", "dog"], ["a {}", "the {}"]).shape == (2, 32)
    found = Segmenter(model).segment(photo(), "cat,dog", short_side=60, window="40/20")
    assert found.labels.shape == (60, 90)


def _with_backbone(source: names.TowerSource) -> names.TowerSource:
    from dataclasses import replace

    return replace(source, backbone=ARCHITECTURE)


def test_the_hub_gives_whatever_is_missing_once(
    tips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = find_entry("tipsv2-b14")
    with in_place_of_the_hub(tmp_path, monkeypatch) as hub:
        for file in tips.iterdir():
            hub.files[f"google/tipsv2-b14/{file.name}"] = file.read_bytes()
        assert not is_cached(entry)
        path = pull(entry)
        assert path is not None and path.name == "model.safetensors" and is_cached(entry)
        asked = len(hub.asked)
        model = load_model("tipsv2-b14", "cpu")
        assert len(hub.asked) == asked and model.card.name == "tipsv2-b14"


def test_without_a_network_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_place_of_the_hub(tmp_path, monkeypatch):
        monkeypatch.setenv("OVSEG_OFFLINE", "1")
        with pytest.raises(DownloadError, match="tipsv2:/path/to/folder"):
            pull(find_entry("tipsv2-l14"))


def test_other_files_come_from_their_authors_pages(
    dinotxt: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    source = _with_backbone(TOWERS["dinotxt-dinov2-l"])
    with in_place_of_the_hub(tmp_path, monkeypatch) as hub:
        hub.files[f"{source.repository}/model.safetensors"] = (
            dinotxt / "backbone.safetensors"
        ).read_bytes()
        for name in source.files:
            hub.files[f"authors/{name}"] = (dinotxt / name).read_bytes()
        addresses = {name: f"{hub.url}/authors/{name}" for name in source.files}
        monkeypatch.setitem(TOWERS, "dinotxt-dinov2-l", replace(source, addresses=addresses))
        model = load_model("dinotxt-dinov2-l", "cpu")
        assert model.card.licence == "Apache-2.0"
        assert files.place_of("dinotxt-dinov2-l", source.files[0]).is_file()
        assert is_cached(find_entry("dinotxt-dinov2-l"))


def test_what_is_given_on_request_comes_with_the_steps(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_place_of_the_hub(tmp_path, monkeypatch) as hub:
        hub.files["timm/vit_large_patch16_dinov3.lvd1689m/model.safetensors"] = b"backbone"
        with pytest.raises(ModelError, match="given on request: ask for dinov3_vitl16") as caught:
            pull(find_entry("dinotxt-dinov3-l"))
    assert "dinov3-downloads" in str(caught.value)
    assert str(own_cache / "models" / "dinotxt-dinov3-l") in str(caught.value)


@pytest.mark.parametrize("family", ["tipsv2", "groupvit", "dinotxt"])
def test_folders_that_lack_something_are_refused(family: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        registry.load_model(f"{family}:{tmp_path / 'none'}", "cpu")
    with pytest.raises(ModelError, match="there is no"):
        registry.load_model(f"{family}:{tmp_path}", "cpu")


def test_weights_that_do_not_fit_are_refused(tips: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tips, tmp_path / "tips"))
    state = load_file(folder / "model.safetensors")
    first = next(key for key in state if "norm" in key)
    del state[first]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are missing"):
        load_model(f"tipsv2:{folder}", "cpu")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be loaded as TIPSv2"):
        load_model(f"tipsv2:{folder}", "cpu")


def test_sides_are_stretched_to_whole_patches() -> None:
    pixels = torch.rand(1, 3, 28, 30)
    assert stretched(pixels[..., :28], 14) is not None
    assert stretched(pixels, 14).shape == (1, 3, 28, 42)
    assert stretched(pixels[..., :28], 14).shape == (1, 3, 28, 28)
