"""Text encoders: pooling, padding, families, names that cannot be had."""

from pathlib import Path

import pytest
import torch

from ovseg.errors import ModelError, UsageError
from ovseg.models.ovsegmentor.build import build_text_encoder
from ovseg.models.ovsegmentor.text_encoder import (
    BertEncoder,
    ClipTextEncoder,
    masked_mean,
    pretrained_clip_tower,
    pretrained_transformer,
    sized_transformer,
)
from tests.models.sizes import small_text

IDS = torch.tensor([[2, 9, 10, 3, 0, 0], [2, 11, 9, 10, 9, 3]])
MASK = IDS > 0


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_padding_does_not_change_a_sentence(architecture: str, pooling: str) -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(small_text(architecture=architecture, pooling=pooling)).eval()
    assert encoder.width == 24
    padded = encoder(IDS, MASK)
    alone = encoder(IDS[:1, :4], MASK[:1, :4])
    assert padded.tokens.shape == (2, 6, 24)
    assert torch.equal(padded.mask, MASK)
    torch.testing.assert_close(padded.sentence[:1], alone.sentence, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.tokens[:1, :4], alone.tokens, rtol=1e-4, atol=1e-5)


def test_pooling_is_the_first_token_or_the_mean_of_real_ones() -> None:
    torch.manual_seed(0)
    transformer = sized_transformer("bert", 24, 1, 4, 48, 40, 20)
    first, mean = BertEncoder(transformer, "first").eval(), BertEncoder(transformer, "mean").eval()
    found = first(IDS, MASK)
    assert torch.equal(found.sentence, found.tokens[:, 0])
    torch.testing.assert_close(mean(IDS, MASK).sentence[0], found.tokens[0, :4].mean(dim=0))


def test_the_mean_of_no_token_is_zero() -> None:
    assert masked_mean(torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [
        [0, 0]
    ]


def test_the_pooler_that_nothing_reads_is_left_out() -> None:
    state = build_text_encoder(small_text()).state_dict()
    assert state and not any("pooler" in name for name in state)


def test_a_local_folder_is_read_as_pretrained(tmp_path: Path) -> None:
    saved = sized_transformer("bert", 24, 1, 4, 48, 40, 20)
    saved.save_pretrained(tmp_path)
    loaded = build_text_encoder(small_text(encoder=str(tmp_path)), pretrained=True)
    for name, tensor in saved.state_dict().items():
        torch.testing.assert_close(loaded.transformer.state_dict()[name], tensor)


def test_a_folder_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    saved = sized_transformer("bert", 24, 1, 4, 48, 40, 20)
    saved.config.save_pretrained(tmp_path)
    torch.save(saved.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        pretrained_transformer(str(tmp_path))


def test_a_name_that_cannot_be_had_says_which_files_to_bring(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"config.json and model.safetensors.*model.text.encoder"):
        pretrained_transformer(str(tmp_path / "nothing"))


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(UsageError, match="'lstm'"):
        sized_transformer("lstm", 24, 1, 4, 48, 40, 20)


@pytest.mark.parametrize("projected", [False, True])
def test_a_clip_tower_reads_a_prefix_as_the_whole_context(projected: bool) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    tower = open_clip.transformer.TextTransformer(
        context_length=12, vocab_size=50, width=24, heads=4, layers=2, output_dim=16
    ).eval()
    if not projected:
        tower.text_projection = None
    ids = torch.tensor([[48, 5, 6, 49], [48, 7, 49, 0]])
    encoder = ClipTextEncoder(tower)
    found = encoder(ids, ids > 0)
    whole = tower(torch.nn.functional.pad(ids, (0, 8)))  # open_clip's own pooled feature
    torch.testing.assert_close(found.sentence, whole)
    assert found.tokens.shape == (2, 4, 24)
    assert encoder.width == found.sentence.shape[1] == (16 if projected else 24)


@pytest.mark.slow
def test_clip_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("open_clip")
    encoder = build_text_encoder(small_text(encoder="clip:ViT-S-32-alt/nothing"))
    assert isinstance(encoder, ClipTextEncoder)
    assert encoder.width == 256
    assert "tower.text_projection" not in encoder.state_dict()
    with pytest.raises(ModelError, match="clip:ViT-S-32-alt/no-such-tag"):
        pretrained_clip_tower("ViT-S-32-alt", "no-such-tag")
    with pytest.raises(ModelError, match="causal"):
        pretrained_clip_tower("ViT-B-16-SigLIP", "")
