"""Names, activations, weights: what is built for what was asked."""

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from ovseg.errors import DownloadError, ModelError, UsageError
from ovseg.models.clip import weights
from ovseg.models.clip.model import DenseClip
from ovseg.models.clip.names import SHORT_NAMES, ClipName, is_clip_name, parse_clip_name
from ovseg.models.clip.weights import find_spec, load_clip, pretrained
from tests.models.clip.tiny import TINY, tiny_clip, write_folder


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """Recipes without files: what would be downloaded is written down."""
    asked: list[tuple[str, tuple[str, ...]]] = []

    def hub_file(repository: str, names: tuple[str, ...], by_hand: str) -> Path:
        asked.append((repository, names))
        return Path("weights.safetensors")

    monkeypatch.setattr(weights, "hub_file", hub_file)
    return asked


def quick(name: str) -> bool:
    return bool(find_spec(parse_clip_name(name)).config["quick_gelu"])


def test_openai_weights_always_get_quick_gelu(no_download: list[Any]) -> None:
    for architecture, tag in open_clip.list_pretrained():
        if tag == "openai" and architecture.startswith("ViT"):
            assert quick(f"clip:{architecture}/openai")
            assert quick(f"clip:{architecture.removesuffix('-quickgelu')}/openai")
            assert quick(f"clip:{architecture.removesuffix('-quickgelu')}-quickgelu/openai")


def test_laion_and_datacomp_weights_never_get_it(no_download: list[Any]) -> None:
    """But for ViT-B-32 on LAION-400M, which was trained with it: open_clip's table says so."""
    seen = 0
    for architecture, tag in open_clip.list_pretrained():
        if tag.startswith(("laion", "datacomp")) and architecture.startswith("ViT"):
            trained_with_it = architecture.startswith("ViT-B-32") and tag.startswith("laion400m")
            assert quick(f"clip:{architecture}/{tag}") == trained_with_it, (architecture, tag)
            seen += 1
    assert seen > 15
    assert not quick("clip:ViT-B-16-quickgelu/laion2b_s34b_b88k"), "the spelling does not decide"


def test_metaclip_goes_by_its_own_entry(no_download: list[Any]) -> None:
    assert quick("clip:ViT-B-16/metaclip_400m")
    assert not quick("clip:ViT-H-14/metaclip_altogether")


def test_the_activation_reaches_every_block() -> None:
    from open_clip.transformer import QuickGELU

    for wanted in (True, False):
        model = tiny_clip(quick_gelu=wanted)
        blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
        assert all(isinstance(block.mlp.gelu, QuickGELU) is wanted for block in blocks)


def test_short_names(no_download: list[Any]) -> None:
    for name in SHORT_NAMES:
        assert is_clip_name(name)
        find_spec(parse_clip_name(name))
    assert [repository for repository, _ in no_download] == [
        "timm/vit_base_patch16_clip_224.openai",
        "timm/vit_large_patch14_clip_224.openai",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        "timm/ViT-B-16-SigLIP2-256",
    ]
    assert not is_clip_name("starter")
    assert not is_clip_name("clip-b16.safetensors")


def test_options_of_a_name() -> None:
    name = parse_clip_name("clip-b16,head=proxyclip,backbone=x.dino,precision=bf16")
    assert (name.architecture, name.tag) == ("ViT-B-16-quickgelu", "openai")
    assert (name.head, name.backbone, name.precision) == ("proxyclip", "x.dino", "bf16")
    assert parse_clip_name("clip:ViT-B-16/openai").head == "naclip"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip:ViT-B-16", "neither a file nor ARCHITECTURE/WEIGHTS"),
        ("clip:/no/such/file.pt", "neither a file nor"),
        ("clip:/no/such/file.pt,arch=ViT-B-16", "no such file"),
        ("clip:ViT-B-16/openai,hed=sclip", "did you mean head"),
        ("clip:ViT-B-16/openai,head=naklip", "did you mean naclip"),
        ("clip:ViT-B-16/openai,precision=int8", "choose fp32, bf16, fp16"),
    ],
)
def test_senseless_names(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_clip_name(name)


def test_unknown_architectures_and_weights() -> None:
    with pytest.raises(UsageError, match="did you mean ViT-B-16"):
        pretrained("ViT-B16", "openai")
    with pytest.raises(UsageError, match="no weights 'openia' for ViT-B-16; it has openai"):
        pretrained("ViT-B-16", "openia")


def test_a_folder_loads_with_its_own_configuration(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny")
    loaded = load_clip(ClipName(path=folder))
    assert loaded.spec.mean == (0.5, 0.5, 0.5)
    assert loaded.spec.config["quick_gelu"] is True
    expected = tiny_clip().state_dict()
    found = loaded.model.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_folder_that_lacks_something(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no open_clip_model\.safetensors"):
        load_clip(ClipName(path=folder))
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError, match="no model_cfg"):
        load_clip(ClipName(path=folder))
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(ModelError, match="no JSON"):
        load_clip(ClipName(path=folder))


@pytest.fixture
def tiny_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny model under a name of open_clip's."""
    plain = {key: value for key, value in TINY.items() if key != "quick_gelu"}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", plain)
    return "ViT-tiny"


def test_a_file_needs_its_architecture(tmp_path: Path, tiny_architecture: str) -> None:
    file = write_folder(tmp_path / "tiny") / "open_clip_model.safetensors"
    with pytest.raises(UsageError, match="does not tell its activation: add ,arch="):
        load_clip(parse_clip_name(f"clip:{file}"))
    with pytest.raises(UsageError, match="did you mean ViT-tiny"):
        load_clip(parse_clip_name(f"clip:{file},arch=ViT-tony"))
    for spelled, wanted in ((tiny_architecture, False), (tiny_architecture + "-quickgelu", True)):
        spec = find_spec(parse_clip_name(f"clip:{file},arch={spelled}"))
        assert bool(spec.config.get("quick_gelu")) is wanted


def test_other_forms_of_a_file(tmp_path: Path, tiny_architecture: str) -> None:
    """A training checkpoint of open_clip's: a pickle with `module.` before every key."""
    state = {f"module.{key}": value for key, value in tiny_clip().state_dict().items()}
    file = tmp_path / "epoch_32.pt"
    torch.save({"epoch": 32, "state_dict": state}, file)
    loaded = load_clip(parse_clip_name(f"clip:{file},arch={tiny_architecture}"))
    assert torch.equal(loaded.model.visual.conv1.weight, tiny_clip().visual.conv1.weight)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, tiny_architecture: str) -> None:
    state = tiny_clip().state_dict()
    state["visual.conv1.weight"][0] = float("nan")
    file = tmp_path / "diverged.pt"
    torch.save({"state_dict": state}, file)
    with pytest.raises(ModelError, match=r"1 tensor with NaN or infinity: visual\.conv1\.weight"):
        load_clip(parse_clip_name(f"clip:{file},arch={tiny_architecture}"))


class Explosive:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("kind", ["pickle", "script", "other model", "cut off", "not one"])
def test_files_that_cannot_be_loaded(
    kind: str, tmp_path: Path, tiny_architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ("weights.safetensors" if kind in ("other model", "cut off") else "w.pt")
    if kind == "pickle":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Explosive()}, file)
    elif kind == "script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    elif kind == "other model":
        save_file({"visual.proj": torch.zeros(32, 16)}, file)
    elif kind == "cut off":
        whole = write_folder(tmp_path / "tiny") / "open_clip_model.safetensors"
        file.write_bytes(whole.read_bytes()[:-100])
    else:
        file.write_text("not a checkpoint")
    with pytest.raises(ModelError, match=r"these weights cannot be loaded: .+") as caught:
        load_clip(parse_clip_name(f"clip:{file},arch={tiny_architecture}"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()
    if kind == "script":
        assert "compiled program" in str(caught.value)


def test_coca_is_refused() -> None:
    with pytest.raises(ModelError, match="CoCa"):
        weights.build({**TINY, "multimodal_cfg": {}})


def test_proxyclip_from_local_files(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    weights = tmp_path / "model.safetensors"
    save_file({k: v.contiguous() for k, v in backbone.state_dict().items()}, weights)
    folder = write_folder(tmp_path / "tiny")
    name = f"clip:{folder},head=proxyclip,backbone=vit_tiny_patch16_224@{weights}"
    model = DenseClip.load(name)
    guide = model.network.guide
    assert guide is not None
    expected = load_file(weights)["blocks.3.attn.qkv.weight"]
    assert torch.equal(guide.backbone.blocks[3].attn.qkv.weight, expected)
    grouped = model.encode_image(torch.randn(1, 3, 64, 96))
    assert grouped.grid == (4, 6)
    assert grouped.embedding.shape == (1, 24, 16)


@pytest.mark.parametrize(
    ("backbone", "error", "message"),
    [
        ("vit_base_patch8_224.dinoo", UsageError, "did you mean vit_base_patch8_224.dino"),
        ("vit_tiny@/no/such.safetensors", UsageError, "no such file"),
        ("vit_tiny@{pickle}", UsageError, "must be a .safetensors file"),
        ("vit_base_patch8_224.dino", DownloadError, "then name it: backbone=vit_base_patch8_224"),
    ],
)
def test_backbones_that_are_not_there(
    backbone: str,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    pickle = tmp_path / "w.pth"
    pickle.touch()
    folder = write_folder(tmp_path / "tiny")
    name = f"clip:{folder},head=proxyclip,backbone={backbone.format(pickle=pickle)}"
    with pytest.raises(error, match=message):
        DenseClip.load(name)


def test_offline_says_which_file_and_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with pytest.raises(DownloadError) as caught:
        DenseClip.load("clip-b16")
    message = str(caught.value)
    assert "timm/vit_base_patch16_clip_224.openai" in message
    assert "open_clip_model.safetensors" in message
    assert "--model clip:/path/to/file,arch=ViT-B-16-quickgelu" in message


def test_a_tokenizer_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {**TINY["text_cfg"], "hf_tokenizer_name": "owner/tokenizer"}
    folder = write_folder(tmp_path / "tiny", text_cfg=text)
    with pytest.raises(ModelError, match=r"the tokenizer of .* cannot be loaded"):
        load_clip(ClipName(path=folder))
    shutil.rmtree(folder)


def test_the_hash_is_of_everything_that_changes_a_class_embedding(tmp_path: Path) -> None:
    cards = [
        DenseClip.load(f"clip:{write_folder(tmp_path / name, seed, **changes)}{options}").card
        for name, seed, changes, options in (
            ("one", 0, {}, ""),
            ("two", 0, {}, ",head=sclip"),
            ("three", 1, {}, ""),
            ("four", 0, {"quick_gelu": False}, ""),
        )
    ]
    one, other_head, other_weights, other_activation = (card.content_hash for card in cards)
    assert one == other_head, "heads share cached class embeddings"
    assert len({one, other_weights, other_activation}) == 3
    assert "naclip" in cards[0].description
    assert "sclip" in cards[1].description


def described(folder: Path, **text: Any) -> Path:
    """A folder whose configuration has more keys under `text_cfg`."""
    path = write_folder(folder) / "open_clip_config.json"
    values = json.loads(path.read_text())
    values["model_cfg"]["text_cfg"] |= text
    path.write_text(json.dumps(values))
    return folder


def test_code_beside_a_model_is_never_run(tmp_path: Path) -> None:
    """open_clip hands `tokenizer_kwargs` on to a loader that runs code where it is told to."""
    folder = described(
        tmp_path / "hostile",
        hf_tokenizer_name="anything",
        tokenizer_kwargs={"trust_remote_code": True},
    )
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nT = None\n")
    config = {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "tokenizer_class": "T"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="refused: tokenizer_kwargs"):
        load_clip(ClipName(path=folder))
    again = described(tmp_path / "hostile", hf_tokenizer_name="anything")
    with pytest.raises(ModelError):
        load_clip(ClipName(path=again))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"width": 32_768, "layers": 200, "heads": 8}, "numbers, which are not in the file"),
        ({"layers": 10**9}, "layers = 1000000000 is beyond any model"),
        ({"vocab_size": 10**11}, "vocab_size"),
        ({"context_length": 60_000}, "context_length"),
        ({"hf_model_name": "hf-hub:someone/else"}, "no plain name"),
        ({"width": 0}, "open_clip cannot build"),
        ({"heads": 0}, "open_clip cannot build"),
    ],
)
def test_descriptions_that_no_model_has(tmp_path: Path, text: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_clip(ClipName(path=described(tmp_path / "tiny", **text)))


@pytest.mark.parametrize("content", ["[" * 3000, "9" * 5000, "[]", '{"model_cfg": [1]}'])
def test_descriptions_that_are_none(tmp_path: Path, content: str) -> None:
    folder = write_folder(tmp_path / "tiny")
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"open_clip_config\.json"):
        load_clip(ClipName(path=folder))


def test_the_same_weights_with_another_description_are_another_model(tmp_path: Path) -> None:
    """Else a folder made so could fill the cache of the honest one."""
    honest = DenseClip.load(f"clip:{write_folder(tmp_path / 'a')}")
    folder = described(tmp_path / "b", tokenizer_kwargs={"clean": "canonicalize"})
    assert DenseClip.load(f"clip:{folder}").card.content_hash != honest.card.content_hash
