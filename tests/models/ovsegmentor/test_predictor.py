"""OVSegmentor behind the interface of inference, and from a checkpoint file."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.config.schema import Recipe
from ovseg.errors import ModelError
from ovseg.models.checkpoint import read_info, write_checkpoint
from ovseg.models.interface import ModelCard
from ovseg.models.ovsegmentor.build import build_ovsegmentor
from ovseg.models.ovsegmentor.predictor import Predictor, read_model
from ovseg.models.registry import load_model
from ovseg.models.tokenizer import ForeignTokenizer, fetch_tokenizer_files, load_tokenizer
from tests.models.sizes import small_model, small_text, write_tokenizer


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_small_checkpoint(tmp_path)


def write_small_checkpoint(folder: Path, with_tokenizer: bool = True, **text: object) -> Path:
    torch.manual_seed(0)
    recipe = Recipe(model=small_model(text=small_text(**text)))
    model = build_ovsegmentor(recipe.model)
    tokenizer = fetch_tokenizer_files(str(write_tokenizer(folder / "tokenizer")))
    path = folder / "model.safetensors"
    kept = tokenizer if with_tokenizer else None
    write_checkpoint(path, model.state_dict(), recipe, tokenizer=kept, licence="MIT")
    return path


def test_a_checkpoint_file_is_a_model(checkpoint: Path) -> None:
    model = load_model(checkpoint, "cpu")
    assert isinstance(model, Predictor)
    assert (model.card.kind, model.card.licence) == ("ovsegmentor", "MIT")
    assert len(model.card.content_hash) == 64
    assert model.unknown(["anything"]) == [] and model.known_words() is None
    assert model.preprocessing.multiple_of == 16

    pixels = model.from_numpy(np.zeros((2, 3, 32, 48), np.float32))
    grouped = model.encode_image(pixels)
    assert grouped.embedding.shape == (2, 3, 16) and grouped.grid == (2, 3)
    assert grouped.assignment.shape == (2, 3, 6) and grouped.image_embedding.shape == (2, 16)
    classes = model.encode_text(["cat", "dog"], model.templates)
    scores = model.score(grouped, classes, model.threshold)
    assert scores.shape == (2, 3, 3) and not scores.requires_grad


def test_class_embeddings_are_the_renormalised_mean_over_templates(checkpoint: Path) -> None:
    model = read_model(checkpoint)
    both = model.encode_text(["cat", "dog"], ["a photo of {}.", "a {}."])
    single = [model.encode_text(["cat", "dog"], [t]) for t in ("a photo of {}.", "a {}.")]
    expected = torch.nn.functional.normalize(sum(single) / 2, dim=-1)
    torch.testing.assert_close(both, expected)
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(2))


def test_encoding_runs_once_and_deterministically(checkpoint: Path) -> None:
    model, calls = read_model(checkpoint), []
    model.model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    pixels = torch.randn(1, 3, 32, 32)
    grouped = model.encode_image(pixels)
    model.score(grouped, torch.randn(4, 16), 0.5)
    assert len(calls) == 1
    assert torch.equal(model.encode_image(pixels).assignment, grouped.assignment)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_score_in_single_at_least(checkpoint: Path, dtype: torch.dtype) -> None:
    model = read_model(checkpoint)
    pixels, words = torch.randn(1, 3, 32, 32), ["cat", "dog"]
    exact = model.score(model.encode_image(pixels), model.encode_text(words, model.templates), None)
    model.model.to(dtype)
    found = model.score(model.encode_image(pixels), model.encode_text(words, model.templates), None)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found[..., 1:].float(), exact[..., 1:], rtol=0.1, atol=0.03)


def test_the_tokenizer_can_come_from_a_folder_instead(tmp_path: Path) -> None:
    named = str(tmp_path / "tokenizer")
    path = write_small_checkpoint(tmp_path, with_tokenizer=False, tokenizer=named)
    torch.testing.assert_close(
        read_model(path).encode_text(["cat"], ["{}"]),
        read_model(write_small_checkpoint(tmp_path / "other")).encode_text(["cat"], ["{}"]),
    )


def test_without_any_tokenizer_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tokenizer"):
        read_model(write_small_checkpoint(tmp_path, with_tokenizer=False))


def test_a_released_file_is_sent_to_conversion(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ovseg models convert"):
        read_model(tmp_path / "released.pth")


def test_a_checkpoint_of_another_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_checkpoint(path, {"x": torch.zeros(1)}, Recipe(), model_class="Other")
    with pytest.raises(ModelError, match="Other"):
        read_model(path)


def test_scores_need_the_image_embedding(checkpoint: Path) -> None:
    from dataclasses import replace

    model = read_model(checkpoint)
    grouped = model.encode_image(torch.randn(1, 3, 32, 32))
    with pytest.raises(ModelError, match="image embedding"):
        model.score(replace(grouped, image_embedding=None), torch.randn(4, 16), None)


def test_tokens_are_padded_to_the_longest_and_cut_at_the_most(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(write_tokenizer(tmp_path)), max_tokens=6)
    tokens = tokenizer(["cat", "a photo of a cat."])
    assert tokens.ids.shape == (2, 6)
    assert tokens.mask.tolist() == [[True] * 3 + [False] * 3, [True] * 6]
    assert tokenizer(["cat", "dog"]).ids.shape == (2, 3)


def test_clip_tokens_end_at_the_end_of_text() -> None:
    pytest.importorskip("open_clip")
    tokens = load_tokenizer("clip:ViT-B-32/openai", max_tokens=77)(["a cat", "a photo of a cat"])
    assert tokens.ids.shape == (2, 7)
    assert tokens.mask.tolist() == [[True] * 4 + [False] * 3, [True] * 7]
    assert tokens.ids[0, 3] == tokens.ids[1, 6] == tokens.ids.max()


def test_a_card_is_what_it_was_given(checkpoint: Path) -> None:
    given = read_model(checkpoint)
    card = ModelCard("n", "k", "d", "l", "h")
    assert Predictor(given.model, given.tokenizer, card, threshold=0.35).threshold == 0.35


def altered(path: Path, **changes: object) -> Path:
    """The checkpoint with other weights of the text projector, or other sizes, and the old hash."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    recipe = json.loads(header["__metadata__"]["ovseg.recipe"])
    recipe["model"]["image"] |= changes
    header["__metadata__"]["ovseg.recipe"] = json.dumps(recipe)
    body = bytearray(content[8 + length :])
    if not changes:
        start, end = header["text_projector.out.weight"]["data_offsets"]
        body[start:end] = bytes(end - start)
    text = json.dumps(header).encode()
    other = path.with_name("altered.safetensors")
    other.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return other


def test_a_hash_that_a_file_claims_is_not_believed(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a file made so could put its own embeddings into the cache of an honest model."""
    honest, other = read_model(checkpoint).card, read_model(altered(checkpoint)).card
    assert read_info(checkpoint).content_hash == honest.content_hash
    assert read_info(altered(checkpoint)).content_hash == honest.content_hash
    assert other.content_hash != honest.content_hash
    assert "its content is not what was written" in caplog.text


def test_a_model_that_a_file_only_claims_is_never_allocated(checkpoint: Path) -> None:
    """A text of 40 bytes may ask for 100 GB."""
    path = altered(checkpoint, width=16_384, depths=[200, 200])
    with pytest.raises(ModelError, match=r"does not fit OVSegmentor: .* tensors missing"):
        read_model(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < 8 << 30


def test_a_tokenizer_that_panics_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    files = fetch_tokenizer_files(str(tmp_path / "tokenizer"))
    values = json.loads(files.files["tokenizer.json"])
    rule = {"type": "Split", "pattern": {"Regex": "(a+)+$|(a|aa)+$"}, "behavior": "Isolated"}
    values["pre_tokenizer"] = rule | {"invert": False}
    hostile = replace(files, files={**files.files, "tokenizer.json": json.dumps(values)})
    tokenizer = ForeignTokenizer(hostile, 77, "x.safetensors")
    with pytest.raises(ModelError, match=r"x\.safetensors: "):
        tokenizer(["a" * 60 + "!"])
