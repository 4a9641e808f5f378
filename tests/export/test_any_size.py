"""Networks for all sizes give what those give that ask how large an image is."""

import pytest
import torch

from ovseg.export.any_size import AnyConv, with_fixed_padding
from ovseg.models.starter.network import EfficientNetLite


@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize(
    "shape", [(96, 32), (48, 16)]
)  # and half of that: an odd side at stride 16
def test_padding_that_is_fixed_changes_nothing(stride: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = EfficientNetLite(stride=stride, classes=2).eval()
    fixed = with_fixed_padding(network)
    pixels = torch.randn(1, 3, *shape)
    with torch.inference_mode():
        torch.testing.assert_close(fixed.features(pixels), network.features(pixels))
    # All steps of stride 2 but the fifth meet even sides, and need not be made at stride 1 first.
    assert sum(isinstance(each, AnyConv) for each in fixed.modules()) == (stride == 32)
