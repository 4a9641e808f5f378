"""Small models as the libraries save them and the hub serves them."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    GroupViTConfig,
    GroupViTModel,
    PreTrainedTokenizerFast,
    Tipsv2Config,
    Tipsv2Model,
)
from transformers.models.tipsv2.tokenization_tipsv2 import Tipsv2Tokenizer

from ovseg.models.towers.dinotxt import DinoTxtText, VisionHead

LETTERS = "abcdefghijklmnopqrstuvwxyz."


def write_tips(folder: Path, seed: int = 0) -> Path:
    """TIPSv2 with three blocks, as `save_pretrained` writes it."""
    torch.manual_seed(seed)
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    text = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 64,
    }
    model = Tipsv2Model(Tipsv2Config(vision_config=vision, text_config=text))
    model.save_pretrained(folder)
    words = ["<pad>", "<unk>", "▁", *LETTERS, *(f"▁{letter}" for letter in LETTERS)]
    tokenizer = Tipsv2Tokenizer(vocab={word: at for at, word in enumerate(words)}, merges=[])
    tokenizer.save_pretrained(folder)
    return folder


def write_groupvit(folder: Path, seed: int = 0) -> Path:
    """GroupViT with two stages, as `save_pretrained` writes it."""
    torch.manual_seed(seed)
    config = GroupViTConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "depths": [1, 1, 1],
            "num_hidden_layers": 3,
            "num_group_tokens": [8, 4, 0],
            "num_output_groups": [8, 4, 0],
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        text_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 40,
            "max_position_embeddings": 24,
            "eos_token_id": 39,
            "bos_token_id": 38,
            "pad_token_id": 39,
        },
        projection_dim=24,
        projection_intermediate_dim=40,
    )
    model = GroupViTModel(config)
    with torch.no_grad():  # a fresh table of positions is zeros, and shows no mistake
        model.vision_model.embeddings.position_embeddings.normal_(std=0.5)
    model.save_pretrained(folder)
    words = {letter: at for at, letter in enumerate(LETTERS)} | {"<start>": 38, "<end>": 39}
    tokenizer = Tokenizer(models.WordLevel({**words, "?": 30}, unk_token="?"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="?", pad_token="<end>", eos_token="<end>"
    )
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 39)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="?", pad_token="<end>", eos_token="<end>",
        model_max_length=24,
    )  # fmt: skip
    fast.save_pretrained(folder)
    (folder / "merges.txt").write_text("")
    return folder


ARCHITECTURE = "vit_small_patch14_reg4_dinov2"


def write_dinotxt(folder: Path, seed: int = 0) -> Path:
    """Head, text tower and backbone as their authors' files and timm's."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    backbone = timm.create_model(ARCHITECTURE, num_classes=0, img_size=518)
    save_file(backbone.state_dict(), folder / "backbone.safetensors")
    head = VisionHead(384, 6, blocks=2, projected=32)
    text = DinoTxtText(width=64, heads=1, layers=2, embedding=64)
    torch.nn.init.normal_(text.backbone.positional_embedding)
    start = "dinov2_vitl14_reg4_dinotxt_tet1280d20h24l_"
    torch.save(head.state_dict(), folder / f"{start}vision_head.pth")
    torch.save(text.state_dict(), folder / f"{start}text_encoder.pth")
    return folder
