"""Names and shapes of the reference's state."""

import json
from pathlib import Path

import pytest
import torch

from ovseg.models.ovsegmentor.conversion import our_key, released_to_ours

FIXTURE = Path(__file__).parents[2] / "parity" / "data" / "reference-a.json"


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
def test_names(theirs: str, ours: str | None) -> None:
    assert our_key(theirs) == ours


def state() -> dict[str, torch.Tensor]:
    shapes = json.loads(FIXTURE.read_text(encoding="utf-8"))["keys"]
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_no_two_tensors_fall_on_one_name() -> None:
    online = [name for name in state() if not name.startswith("img_encoder_momentum.")]
    kept = [our_key(name) for name in online if our_key(name) is not None]
    assert len(kept) == len(set(kept)) == len(released_to_ours(state()))


def test_at_equal_widths_a_missing_alignment_is_the_identity() -> None:
    tensors = {
        "img_encoder.norm.weight": torch.zeros(5),
        "multimodal_groupingblock.blocks.0.norm_x.weight": torch.zeros(5),
    }
    ours = released_to_ours(tensors)
    assert torch.equal(ours["entity_decoder.align_image.weight"], torch.eye(5))
    tensors["align_proj_img.weight"] = torch.ones(5, 5)
    assert float(released_to_ours(tensors)["entity_decoder.align_image.weight"].min()) == 1
