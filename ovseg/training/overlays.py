"""Pictures of what groups see: a few fixed images, each patch in its group's colour.

Letters: G group, N patch, S side of an image, pixels.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ovseg.data.dataset.index import PairIndex
from ovseg.data.dataset.shards import UnreadableError
from ovseg.data.images import UndecodableError, decode
from ovseg.files import replacing
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.training.step import normalised

_IMAGES = 6
_OPACITY = 0.5

Pixels = npt.NDArray[np.uint8]


def draw_overlays(model: OVSegmentor, index: PairIndex, path: Path, size: int) -> None:
    """Write a PNG: images above, the same with each patch in its group's colour below.

    Args:
        model: in evaluation mode.
        size: side S at which images are shown and encoded.
    """
    images = _first_images(index, size)
    if not images:
        return
    device = model.logit_scale.device
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    with torch.no_grad():
        encoded = model.encode_image(normalised(pixels))
    winner = encoded.binding.soft.argmax(dim=1).cpu().numpy()  # [B, N]
    colours = _palette(encoded.binding.soft.shape[1])
    painted = [
        _blend(image, colours[groups.reshape(encoded.grid)])
        for image, groups in zip(images, winner, strict=True)
    ]
    sheet = np.concatenate([np.concatenate(images, axis=1), np.concatenate(painted, axis=1)])
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary)


def _first_images(index: PairIndex, size: int) -> list[Pixels]:
    found: list[Pixels] = []
    for row in range(min(len(index), 4 * _IMAGES)):
        try:
            image = decode(index.image(row))
        except (UndecodableError, UnreadableError):
            continue  # the training itself counts and reports these
        found.append(np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)))
        if len(found) == _IMAGES:
            break
    return found


def _blend(image: Pixels, colours: Pixels) -> Pixels:
    side = image.shape[1], image.shape[0]
    large = cv2.resize(colours, side, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.addWeighted(image, 1 - _OPACITY, large, _OPACITY, 0))


def _palette(count: int) -> Pixels:
    """Colours evenly round the wheel, uint8 [count, 3]."""
    hue = np.linspace(0, 180, count, endpoint=False).astype(np.uint8)
    wheel = np.stack([hue, np.full_like(hue, 200), np.full_like(hue, 255)], axis=1)
    return np.asarray(cv2.cvtColor(wheel[None], cv2.COLOR_HSV2RGB)[0])
