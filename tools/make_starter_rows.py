"""Learn rows of the starter's classifier for words that ImageNet lacks, from cut-out photos.

    apt-get install tuxpaint-stamps-default lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    pip install "ovseg[torch]"
    python tools/make_starter_rows.py

Reads learned.toml, and writes the rows behind the thousand in weights.safetensors. Then run
make_starter_words.py and make_starter_graph.py. The network stays as it is: its features at the
positions of a stamp on a wallpaper must be told from those of the wallpapers and of other stamps.

Letters: P position, D feature, K learned word.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from ovseg.files import replacing
from ovseg.models.starter.network import CLASSES, STRIDE, EfficientNetLite

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent.parent / "ovseg/models/starter"
SIDE = 384
SCENES_PER_WORD = 12
OTHERS = 110
OTHER_FOLDERS = ("animals", "clothes", "food", "household", "plants", "sports", "vehicles")
GROUNDS = 24
STEPS, BATCH, LEARNING_RATE, DECAY = 250, 1024, 3e-3, 3e-2
SHARE = 48
"""Positions of each word in a batch; the others are of wallpapers and other stamps."""

Pixels = NDArray[np.uint8]


def read_rgba(path: Path) -> Pixels:
    """A stamp as RGBA, uint8 [H, W, 4]; one without transparency is opaque."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3:
        return np.zeros((1, 1, 4), np.uint8)
    code = cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGBA
    return cv2.cvtColor(values, code)


def read_grounds(folder: Path) -> list[Pixels]:
    """Wallpapers as RGB, uint8 [H, W, 3], a little larger than a scene."""
    found = sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))[:GROUNDS]
    if not found:
        raise SystemExit(f"{folder}: no wallpapers: see this tool's --help")
    grounds = []
    for path in found:
        values = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        scale = 1.8 * SIDE / min(values.shape[:2])
        grounds.append(cv2.resize(values, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return grounds


def compose(rng: Generator, stamp: Pixels, ground: Pixels) -> tuple[NDArray, NDArray]:
    """A scene [SIDE, SIDE, 3] in 0..255 and the stamp's share of each pixel [SIDE, SIDE]."""
    row, column = (rng.integers(side - SIDE + 1) for side in ground.shape[:2])
    scene = ground[row : row + SIDE, column : column + SIDE].astype(np.float32)
    if rng.random() < 0.5:
        stamp = np.ascontiguousarray(stamp[:, ::-1])
    scale = SIDE * rng.uniform(0.45, 1.0) / max(stamp.shape[:2])
    stamp = cv2.resize(stamp, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    stamp = stamp[:SIDE, :SIDE].astype(np.float32)
    height, width = stamp.shape[:2]
    row, column = rng.integers(SIDE - height + 1), rng.integers(SIDE - width + 1)
    place = np.s_[row : row + height, column : column + width]
    share = np.zeros((SIDE, SIDE), np.float32)
    share[place] = stamp[..., 3] / 255
    colours = np.zeros_like(scene)
    colours[place] = np.minimum(stamp[..., :3] * rng.uniform(0.8, 1.15), 255)
    return scene + (colours - scene) * share[..., None], share


@torch.inference_mode()
def read_scene(
    network: EfficientNetLite, scene: NDArray, share: NDArray
) -> tuple[Tensor, Tensor, Tensor]:
    """Features [P, D], and which positions lie in the stamp and which outside, bool [P] each."""
    pixels = torch.from_numpy(scene / 127.5 - 1).float().movedim(-1, 0)[None]
    features = network.features(pixels)[0].flatten(1).T
    covered = functional.avg_pool2d(torch.from_numpy(share)[None, None], STRIDE).flatten()
    return features, covered > 0.6, covered < 0.02


def read_scenes(
    network: EfficientNetLite, words: Sequence[Sequence[Path]], others: Sequence[Path], folder: Path
) -> tuple[list[Tensor], Tensor]:
    """Features of each word's positions, and of all that is none of them."""
    rng, grounds = np.random.default_rng(0), read_grounds(folder)
    plan = [
        (k, paths[i % len(paths)]) for k, paths in enumerate(words) for i in range(SCENES_PER_WORD)
    ]
    plan += [(None, path) for path in others]
    mine: list[list[Tensor]] = [[] for _ in words]
    rest = []
    for k, path in plan:
        ground = grounds[rng.integers(len(grounds))]
        features, inside, outside = read_scene(network, *compose(rng, read_rgba(path), ground))
        rest.append(features[outside])
        (rest if k is None else mine[k]).append(features[inside])
    return [torch.cat(one) for one in mine], torch.cat(rest)


def learn(network: EfficientNetLite, mine: Sequence[Tensor], rest: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [K, D] and their biases [K], beside the thousand classes in one softmax."""
    generator = torch.Generator().manual_seed(0)
    thousand = network.classifier.requires_grad_(False)
    rows = torch.zeros(len(mine), thousand.in_features, requires_grad=True)
    biases = torch.full((len(mine),), -2.0, requires_grad=True)
    optimizer = torch.optim.Adam([rows, biases], LEARNING_RATE)
    for _ in range(STEPS):
        loss = DECAY * rows.square().sum()
        for k, features in [*enumerate(mine), (None, rest)]:
            count = BATCH if k is None else SHARE
            drawn = features[torch.randint(len(features), (count,), generator=generator)]
            old = thousand(drawn).logsumexp(dim=-1, keepdim=True)
            shares = torch.cat([drawn @ rows.T + biases, old], dim=-1).log_softmax(dim=-1)
            loss = loss - (shares[:, -1].mean() * 2 if k is None else shares[:, k].mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rows.detach(), biases.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    parser.add_argument("--backgrounds", type=Path, default=Path("/usr/share/backgrounds"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # with two, sums are parted elsewhere
    path = FOLDER / "weights.safetensors"
    tensors = load_file(path)
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][:CLASSES]
    network = EfficientNetLite().eval()
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    entries = tomllib.loads((FOLDER / "learned.toml").read_text(encoding="utf-8"))
    words = [[options.stamps / name for name in entry["stamps"]] for entry in entries.values()]
    used = {path for paths in words for path in paths}
    stamps = [p for name in OTHER_FOLDERS for p in sorted((options.stamps / name).rglob("*.png"))]
    others = [p for p in stamps if p not in used]
    chosen = np.random.default_rng(0).permutation(len(others))[:OTHERS]
    mine, rest = read_scenes(network, words, [others[i] for i in chosen], options.backgrounds)
    rows, biases = learn(network, mine, rest)
    tensors["classifier.weight"] = torch.cat([tensors["classifier.weight"], rows.half()])
    tensors["classifier.bias"] = torch.cat([tensors["classifier.bias"], biases.half()])
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    print(f"{path}: {CLASSES} classes and {', '.join(entries)}")


if __name__ == "__main__":
    main()
