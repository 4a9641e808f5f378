"""Tensors of released towers under the names that the libraries have for them."""

from torch import Tensor


def vision_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of TIPS's image encoder under transformers' names."""
    names = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "register_tokens": "embeddings.register_tokens",
    }
    parts = {
        "blocks.": "encoder.layer.",
        ".attn.proj.": ".attention.o_proj.",
        ".ls1.gamma": ".layer_scale1.lambda1",
        ".ls2.gamma": ".layer_scale2.lambda1",
        ".mlp.w3.": ".mlp.down_proj.",
        "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    }
    found = {}
    for key, value in state.items():
        if ".attn.qkv." in key or ".mlp.w12." in key:
            to = ("q_proj", "k_proj", "v_proj") if "qkv" in key else ("gate_proj", "up_proj")
            old, new = ("attn.qkv", "attention") if "qkv" in key else ("mlp.w12", "mlp")
            for name, part in zip(to, value.chunk(len(to)), strict=True):
                renamed = key.replace("blocks.", "encoder.layer.").replace(old, f"{new}.{name}")
                found[renamed] = part
            continue
        if key.startswith("norm."):
            key = key.replace("norm.", "layernorm.")
        for before, after in parts.items():
            key = key.replace(before, after)
        found[names.get(key, key)] = value
    return found


def text_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of TIPS's text encoder under transformers' names."""
    parts = {
        "transformer.resblocks.": "encoder.layers.",
        ".attn.out_proj.": ".self_attn.out_proj.",
        ".ln_1.": ".layer_norm1.",
        ".ln_2.": ".layer_norm2.",
        ".c_fc.": ".fc1.",
        ".c_proj.": ".fc2.",
        "ln_final.": "final_layer_norm.",
        "token_embedding.": "embeddings.token_embedding.",
    }
    found = {}
    for key, value in state.items():
        for before, after in parts.items():
            key = key.replace(before, after)
        if ".attn.in_proj_" in key:
            kind = key.rsplit("_", 1)[1]
            for name, part in zip("qkv", value.chunk(3), strict=True):
                start = key.split(".attn.")[0]
                found[f"{start}.self_attn.{name}_proj.{kind}"] = part
        else:
            found[key] = value
    return found


def timm_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of DINOv2's hub under timm's names: the class token has its position in it."""
    state = dict(state)
    positions = state.pop("pos_embed")
    state.pop("mask_token", None)
    state["cls_token"] = state["cls_token"] + positions[:, :1]
    state["pos_embed"] = positions[:, 1:]
    state["reg_token"] = state.pop("register_tokens")
    return state
