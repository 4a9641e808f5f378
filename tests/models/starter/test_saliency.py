"""The network that tells objects from what surrounds them gives what the original gives."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ovseg.data.images import read_image
from ovseg.models.normalisation import IMAGENET, Normalisation, Renormalisation
from ovseg.models.starter.saliency import STRIDE, SaliencyNetwork, in_running_order

FOLDER = Path(__file__).parents[3] / "ovseg/models/starter"
EXPECTED = Path(__file__).parent / "chelsea-salience.png"
"""Third side output of the original file, u2netp.onnx, for the photo at 320x320, times 255."""


@pytest.fixture(scope="module")
def network() -> SaliencyNetwork:
    built = SaliencyNetwork().eval().requires_grad_(False)
    weights = load_file(FOLDER / "saliency.safetensors")
    built.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return built


def test_it_gives_what_the_original_gives(network: SaliencyNetwork, chelsea: Path) -> None:
    image = cv2.resize(read_image(chelsea), (320, 320), interpolation=cv2.INTER_AREA)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    found = network(Renormalisation(Normalisation((0, 0, 0), (1, 1, 1)), IMAGENET)(pixels))
    expected = cv2.imread(str(EXPECTED), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
    assert 0.2 < expected.mean() < 0.8  # a cat and what is behind it
    # Weights are stored in half precision, the map in steps of 1/255.
    assert np.abs(found[0, 0].numpy() - expected).max() < 0.02


@pytest.mark.parametrize("shape", [(64, 64), (48, 112), (16, 16)])
def test_any_multiple_of_sixteen(network: SaliencyNetwork, shape: tuple[int, int]) -> None:
    found = network(torch.randn(2, 3, *shape))
    assert found.shape == (2, 1, shape[0] // STRIDE, shape[1] // STRIDE)
    assert ((found > 0) & (found < 1)).all()


def test_running_order_is_that_of_the_convolutions(network: SaliencyNetwork) -> None:
    """The order in which weights of the original are filled in, seen by running the network."""
    met: list[torch.nn.Module] = []
    for layer in in_running_order(network):
        layer.register_forward_hook(lambda module, *_: met.append(module))
    network(torch.zeros(1, 3, 32, 32))
    assert met == list(in_running_order(network))
    assert len({id(layer) for layer in met}) == len(met)
