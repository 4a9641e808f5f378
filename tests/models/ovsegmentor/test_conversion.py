"""Released checkpoints: what they tell, and what becomes of them."""

import json
import shutil
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ovseg.config.load import recipe_from_values  # noqa: E402
from ovseg.errors import ModelError, RecipeError, UsageError  # noqa: E402
from ovseg.models.checkpoint import read_info  # noqa: E402
from ovseg.models.ovsegmentor.conversion import our_key, released_to_ours  # noqa: E402
from ovseg.models.ovsegmentor.released import (  # noqa: E402
    ReleasedCheckpoint,
    read_released,
)
from ovseg.models.ovsegmentor.released_config import released_model_values  # noqa: E402
from ovseg.models.released_files import convert_released  # noqa: E402
from ovseg.models.tensor_files import read_tensors  # noqa: E402

PARITY = Path(__file__).parents[2] / "parity" / "data"
HEADS = "model.text.heads=4"


@pytest.fixture(scope="module")
def reference() -> ReleasedCheckpoint:
    return read_released(PARITY / "reference-a.pth")


def test_every_tensor_of_the_fixture_is_there(reference: ReleasedCheckpoint) -> None:
    expected = json.loads((PARITY / "reference-a.json").read_text())["keys"]
    found = {name: list(record.shape) for name, record in reference.tensors.items()}
    assert found == expected


def test_numbers_agree_with_an_unrestricted_reading(
    reference: ReleasedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fixture is ours to trust; stand-ins for omegaconf's classes let torch itself read it.
    classes = {
        "omegaconf": [],
        "omegaconf.base": ["ContainerMetadata", "Metadata"],
        "omegaconf.dictconfig": ["DictConfig"],
        "omegaconf.listconfig": ["ListConfig"],
        "omegaconf.nodes": ["AnyNode"],
    }
    for module, names in classes.items():
        stand_in = types.ModuleType(module)
        for name in names:
            setattr(stand_in, name, type(name, (), {}))
        monkeypatch.setitem(sys.modules, module, stand_in)
    trusted = torch.load(reference.path, weights_only=False)["model"]
    found = reference.tensors
    assert found.keys() == trusted.keys()
    assert all(torch.equal(found[name], trusted[name]) for name in trusted)


def test_the_stored_configuration_is_plain(reference: ReleasedCheckpoint) -> None:
    assert reference.epoch == 3
    assert reference.config["model"]["img_encoder"]["num_heads"] == [4, 4]
    assert reference.config["data"] == {"train": {"batch_size": 256}}


def test_sizes_follow_from_shapes_and_configuration(reference: ReleasedCheckpoint) -> None:
    model = recipe_from_values(
        {"model": released_model_values(reference)}, "fixture", [HEADS]
    ).model
    image, text = model.image, model.text
    assert (model.embedding_width, model.projector_width) == (32, 4096)
    assert (image.width, image.depths, image.heads, image.patch) == (64, (2, 2), 4, 16)
    assert (image.image_size, image.group_tokens, image.groups) == (224, 16, 8)
    assert (image.binding, image.mlp_ratio, image.drop_path) == ("released", 4.0, 0.0)
    assert (text.architecture, text.width, text.depth, text.heads) == ("bert", 48, 2, 4)
    assert (text.mlp_width, text.vocab_size, text.max_positions) == (96, 200, 32)
    assert (text.encoder, text.max_tokens) == ("", 32)
    assert not model.entity.mask_padding


def record(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def published(architecture: str) -> dict[str, torch.Tensor]:
    """The deciding shapes of the two published sizes, and of a DistilBERT."""
    width, vocabulary, positions, types = {
        "bert": (768, 30_522, 512, 2),
        "roberta": (384, 50_265, 514, 1),
        "distilbert": (768, 30_522, 512, 0),
    }[architecture]
    image = "img_encoder.layers"
    text = "text_encoder.transformer"
    layer = f"{text}.transformer.layer" if architecture == "distilbert" else f"{text}.encoder.layer"
    up = "ffn.lin1" if architecture == "distilbert" else "intermediate.dense"
    tensors = {
        "img_encoder.pos_embed": record(1, 196, width),
        "img_encoder.patch_embed.proj.weight": record(width, 3, 16, 16),
        f"{image}.0.group_token": record(1, 64, width),
        f"{image}.0.downsample.mlp_inter.fc2.weight": record(8, width // 2),
        f"{image}.0.blocks.0.mlp.fc1.weight": record(4 * width, width),
        "img_projector.linear_out.weight": record(256, 4096, 1),
        "img_projector.linear_hidden.0.weight": record(4096, width, 1),
        f"{text}.embeddings.word_embeddings.weight": record(vocabulary, 768),
        f"{text}.embeddings.position_embeddings.weight": record(positions, 768),
    }
    if types:
        tensors[f"{text}.embeddings.token_type_embeddings.weight"] = record(types, 768)
    depth = 6 if architecture == "distilbert" else 12
    tensors |= {f"{layer}.{i}.{up}.weight": record(3072, 768) for i in range(depth)}
    for stage in (0, 1):
        for i in range(6):
            tensors[f"{image}.{stage}.blocks.{i}.norm1.weight"] = record(width)
    return tensors


def values(tensors: Mapping[str, torch.Tensor], **config: Any) -> dict[str, Any]:
    checkpoint = ReleasedCheckpoint(Path("x.pth"), tensors, {"model": config}, None)
    return released_model_values(checkpoint)


@pytest.mark.parametrize(
    ("architecture", "width", "encoder", "depth"),
    [
        ("bert", 768, "bert-base-uncased", 12),
        ("roberta", 384, "roberta-base", 12),
        ("distilbert", 768, "distilbert-base-uncased", 6),
    ],
)
def test_published_sizes_need_no_word_from_people(
    architecture: str, width: int, encoder: str, depth: int
) -> None:
    found = values(published(architecture), img_encoder={"num_heads": [8, 8]})
    model = recipe_from_values({"model": found}, "x").model
    assert (model.image.width, model.image.heads, model.image.depths) == (width, 8, (6, 6))
    assert (model.image.group_tokens, model.image.groups, model.image.image_size) == (64, 8, 224)
    assert (model.text.encoder, model.text.architecture) == (encoder, architecture)
    assert (model.text.depth, model.text.heads, model.text.max_tokens) == (depth, 12, 77)


def test_without_a_stored_configuration_the_usual_heads_are_assumed() -> None:
    checkpoint = ReleasedCheckpoint(Path("x.pth"), published("bert"), {}, None)
    assert released_model_values(checkpoint)["image"]["heads"] == 8


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"img_encoder.pos_embed": record(1, 195, 768)}, "not square"),
        ({"img_encoder.pos_embed": record(768)}, "img_encoder.pos_embed is missing or misshapen"),
        ({"img_encoder.patch_embed.proj.weight": None}, "proj.weight is missing or misshapen"),
    ],
)
def test_contradictory_sizes_are_named(change: dict, sentence: str) -> None:
    tensors = {
        key: value for key, value in (published("bert") | change).items() if value is not None
    }
    with pytest.raises(ModelError, match=sentence):
        values(tensors)


def test_different_heads_per_stage_are_named() -> None:
    with pytest.raises(ModelError, match="different numbers of heads"):
        values(published("bert"), img_encoder={"num_heads": [8, 12]})


def test_the_fixture_becomes_a_checkpoint_of_ours(tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    made = convert_released(PARITY / "reference-a.pth", out, [HEADS])
    info, tensors = read_info(out), read_tensors(out)
    assert made.content_hash == info.content_hash
    assert made.tensors == len(tensors) and made.parameters == info.parameters
    assert info.model_class == "OVSegmentor" and not made.has_tokenizer
    released = read_released(PARITY / "reference-a.pth").tensors
    assert torch.equal(tensors["logit_scale"], released["logit_scale"])
    groups = released["img_encoder.layers.0.group_token"].squeeze(0)
    assert torch.equal(tensors["image_encoder.group_tokens"], groups)


def test_converting_twice_gives_the_same_content(tmp_path: Path) -> None:
    made = [
        convert_released(PARITY / "reference-a.pth", tmp_path / f"{i}.safetensors", [HEADS])
        for i in range(2)
    ]
    assert made[0] == made[1]
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


def test_a_size_that_the_file_does_not_tell_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"add --set model\.text\.heads=N"):
        convert_released(PARITY / "reference-a.pth", tmp_path / "x.safetensors")
    with pytest.raises(RecipeError, match="is no multiple of heads 5"):
        convert_released(
            PARITY / "reference-a.pth", tmp_path / "x.safetensors", ["model.text.heads=5"]
        )
    assert list(tmp_path.glob("*.safetensors")) == []


def test_a_size_told_wrongly_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not fit OVSegmentor: .*of another shape"):
        convert_released(
            PARITY / "reference-a.pth",
            tmp_path / "x.safetensors",
            [HEADS, "model.image.groups=4"],
        )
    assert list(tmp_path.glob("*.safetensors")) == []


def test_a_tokenizer_in_a_folder_comes_along(tmp_path: Path) -> None:
    from tests.models.tokenizers import write_tokenizer

    folder = write_tokenizer(tmp_path / "tokenizer")
    out = tmp_path / "ours.safetensors"
    made = convert_released(
        PARITY / "reference-a.pth", out, [HEADS, f"model.text.tokenizer={folder}"]
    )
    assert made.has_tokenizer
    tokenizer = read_info(out).tokenizer
    assert tokenizer is not None and "tokenizer.json" in tokenizer.files


def test_a_tokenizer_that_is_nowhere_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "ours.safetensors"
    absent = tmp_path / "absent"
    absent.mkdir()
    made = convert_released(
        PARITY / "reference-a.pth", out, [HEADS, f"model.text.tokenizer={absent}"]
    )
    assert not made.has_tokenizer
    assert "will name its tokenizer but not bring it along" in caplog.text
    assert "--set model.text.tokenizer=FOLDER" in caplog.text


def test_module_prefixes_of_wrapped_models_are_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save({"model": {"module.img_encoder.x": torch.ones(2)}}, path)
    assert list(read_released(path).tensors) == ["img_encoder.x"]


def test_the_original_is_left_alone(tmp_path: Path) -> None:
    source = tmp_path / "a.pth"
    shutil.copy(PARITY / "reference-a.pth", source)
    source.chmod(0o444)
    before = source.read_bytes()
    convert_released(source, tmp_path / "x.safetensors", [HEADS])
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("img_encoder.pos_embed", "image_encoder.position"),
        ("img_encoder.layers.0.group_token", "image_encoder.group_tokens"),
        ("img_encoder.layers.1.blocks.5.mlp.fc1.bias", "image_encoder.stage2.5.mlp.fc1.bias"),
        (
            "img_encoder.layers.0.downsample.pre_assign_attn.attn.q_proj.weight",
            "image_encoder.binding.cross.attention.query.weight",
        ),
        ("img_encoder.layers.0.downsample.assign.proj.bias", "image_encoder.binding.out.bias"),
        ("img_encoder.layers.0.downsample.norm_new_x.bias", "image_encoder.binding.norm_mlp.bias"),
        ("text_projector.linear_hidden.1.running_var", "text_projector.norm.running_var"),
        ("multimodal_groupingblock.blocks.0.norm_new_x.bias", "entity_decoder.norm_out.bias"),
        ("align_proj_text.weight", "entity_decoder.align_text.weight"),
        ("logit_scale", "logit_scale"),
        ("logit_scale_mask", None),
        ("multimodal_groupingblock.blocks.0.assign.q_proj.weight", None),
        ("text_encoder.transformer.pooler.dense.weight", None),
        ("something.else", "something.else"),
    ],
)
def test_names_of_parameters(theirs: str, ours: str | None) -> None:
    assert our_key(theirs) == ours


def reference_state() -> dict[str, torch.Tensor]:
    shapes = json.loads((PARITY / "reference-a.json").read_text(encoding="utf-8"))["keys"]
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_no_two_tensors_fall_on_one_name() -> None:
    online = [name for name in reference_state() if not name.startswith("img_encoder_momentum.")]
    kept = [our_key(name) for name in online if our_key(name) is not None]
    assert len(kept) == len(set(kept)) == len(released_to_ours(reference_state()))


def test_at_equal_widths_a_missing_alignment_is_the_identity() -> None:
    tensors = {
        "img_encoder.norm.weight": torch.zeros(5),
        "multimodal_groupingblock.blocks.0.norm_x.weight": torch.zeros(5),
    }
    ours = released_to_ours(tensors)
    assert torch.equal(ours["entity_decoder.align_image.weight"], torch.eye(5))
    tensors["align_proj_img.weight"] = torch.ones(5, 5)
    assert float(released_to_ours(tensors)["entity_decoder.align_image.weight"].min()) == 1
