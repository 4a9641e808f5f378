"""Pictures of label maps: colours, outlines and a legend."""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ovseg.inference.bands import Band, bands_of

Pixels = npt.NDArray[np.uint8]

# Okabe and Ito's palette, told apart with every common kind of colour vision; black is left out,
# since it reads as shadow. Later labels take darker and lighter turns of the same hues.
_BASE = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    dtype=np.float64,
)
_SHADES = (1.0, 0.6, 1.45, 0.8, 1.25)
_AT_ONCE = 1 << 20  # pixels
_SWATCH, _GAP = 16, 8
_TEXT = (20, 20, 20)
_PAPER = (255, 255, 255)


class LegendEntry(Protocol):
    """What the legend needs to know of a class."""

    @property
    def label(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def share(self) -> float: ...


def label_palette() -> Pixels:
    """Colour of each of 256 labels, uint8 [256, 3]; label 0, the background, is black."""
    shades = [np.clip(_BASE * shade + max(shade - 1, 0) * 90, 0, 255) for shade in _SHADES]
    cycle = np.concatenate(shades).round().astype(np.uint8)
    table = np.resize(cycle, (256, 3))
    table[1:] = table[:-1].copy()
    table[0] = 0
    return table


def colours(labels: npt.NDArray[np.integer]) -> Pixels:
    """Colour of each label, uint8 [..., 3]; labels over 255 start again at 1."""
    wrapped = np.where(labels > 255, (labels - 1) % 255 + 1, labels)
    return label_palette()[wrapped]


def draw_overlay(
    image: Pixels,
    labels: npt.NDArray[np.uint16],
    entries: Sequence[LegendEntry],
    opacity: float = 0.55,
    parts: npt.NDArray[np.int32] | None = None,
) -> Image.Image:
    """Blend an image with the colours of its labels and put a legend below.

    Background keeps the image as it is. Regions are outlined in white inside black, which shows on
    light and dark alike; the legend has its own white paper for the same reason.

    Args:
        image: RGB, uint8 [H, W, 3].
        labels: uint16 [H, W], 0 is background.
        entries: the classes to name, in order.
        opacity: of the colours, 0..1.
        parts: numbers of what is outlined, [H, W]; by default the labels.
    """
    shown = _shown_labels(int(labels.max(initial=0)), entries)
    size = (labels.shape[1], labels.shape[0])
    named = [(entry.label, f"{entry.name}  {entry.share:.1%}") for entry in entries if entry.label]
    page = _page_with_legend(size, named, shown)
    for band in bands_of(labels.shape, _AT_ONCE):  # the whole of a large image takes gigabytes
        page.paste(
            Image.fromarray(_painted(image, labels, shown, opacity, parts, band)), (0, band.first)
        )
    return page


def painted(
    image: Pixels, labels: npt.NDArray[np.uint16], shown: npt.NDArray[np.int64], opacity: float
) -> Pixels:
    """An image blended with the colours of its labels, and their outlines, uint8 [H, W, 3].

    Args:
        image: RGB, uint8 [H, W, 3].
        labels: uint16 [H, W], 0 is background.
        shown: the label whose colour each label has, [largest label + 1].
        opacity: of the colours, 0..1.
    """
    bands = bands_of(labels.shape, _AT_ONCE)
    return np.concatenate([_painted(image, labels, shown, opacity, None, each) for each in bands])


def legend(width: int, names: Sequence[str]) -> Pixels:
    """The colours of labels from 1 on and their names on white paper, uint8 [height, width, 3]."""
    entries = list(enumerate(names, start=1))
    return np.array(_page_with_legend((width, 0), entries, np.arange(len(names) + 1)))


def _painted(
    image: Pixels,
    labels: npt.NDArray[np.uint16],
    shown: npt.NDArray[np.int64],
    opacity: float,
    parts: npt.NDArray[np.int32] | None,
    band: Band,
) -> Pixels:
    """A band of an image, as `painted`."""
    picture = _blended(image[band.rows], labels[band.rows], shown, opacity)
    width = max(round(min(labels.shape) / 250), 1)
    _outline(picture, labels if parts is None else parts, band, width)
    return picture


def _outline(painted: Pixels, parts: npt.NDArray[np.integer], band: Band, width: int) -> None:
    """Draw the outlines that reach into a band of an image, as wide as that many pixels."""
    above = max(band.first - width, 0)
    edges = _edges(parts[above : band.stop + width + 1])
    own = slice(band.first - above, band.stop - above)
    painted[_grown(edges, width)[own]] = 0
    painted[_grown(edges, width - 1)[own]] = 255


def _blended(
    image: Pixels,
    labels: npt.NDArray[np.uint16],
    shown: npt.NDArray[np.int64],
    opacity: float,
) -> Pixels:
    blended = image.astype(np.float32)
    named = labels > 0
    paint = colours(shown[labels[named]]).astype(np.float32)
    blended[named] += opacity * (paint - blended[named])
    return blended.round().astype(np.uint8)


def _shown_labels(highest: int, entries: Sequence[LegendEntry]) -> npt.NDArray[np.int64]:
    """The label whose colour each label is shown in, [highest + 1].

    Its own, so that a class looks the same in every picture, unless that goes beyond the colours
    that everyone can tell apart: then the classes of this picture take colours in their order.
    """
    shown = np.arange(highest + 1)
    if highest > len(_BASE):
        for rank, entry in enumerate((e for e in entries if e.label), start=1):
            shown[entry.label] = rank
    return shown


def _edges(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour has another label, [H, W]."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1, :] |= labels[:-1, :] != labels[1:, :]
    return edges


def _grown(mask: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    """The mask grown by some pixels in the four directions."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    grown = cv2.dilate(mask.astype(np.uint8), cross, iterations=steps) if steps else mask
    return np.asarray(grown, dtype=bool)


def _page_with_legend(
    size: tuple[int, int], entries: Sequence[tuple[int, str]], shown: npt.NDArray[np.int64]
) -> Image.Image:
    """White paper for a picture of a width and height, with swatches, names and shares below."""
    wide, tall = size
    scale = max(wide / 640, 0.6)
    font = ImageFont.load_default(size=15 * scale)
    swatch, gap = round(_SWATCH * scale), round(_GAP * scale)
    texts = [text for _, text in entries] or ["only background"]
    places, rows = _flow([round(font.getlength(text)) for text in texts], wide, swatch, gap)
    page = Image.new("RGB", (wide, tall + rows * (swatch + gap) + gap), _PAPER)
    draw = ImageDraw.Draw(page)
    for position, (text, (left, row)) in enumerate(zip(texts, places, strict=True)):
        top = tall + gap + row * (swatch + gap)
        if position < len(entries):
            colour = tuple(int(value) for value in colours(shown[entries[position][0]]))
            box = (left, top, left + swatch, top + swatch)
            draw.rectangle(box, fill=colour, outline=_TEXT)
        draw.text((left + swatch + gap, top + swatch / 2), text, _TEXT, font, anchor="lm")
    return page


def _flow(
    widths: Sequence[int], line: int, swatch: int, gap: int
) -> tuple[list[tuple[int, int]], int]:
    """Left edge and row of each entry when set in lines like words, and the number of rows."""
    places: list[tuple[int, int]] = []
    left, row = gap, 0
    for width in widths:
        taken = swatch + gap + width + 2 * gap
        if left > gap and left + taken > line:
            left, row = gap, row + 1
        places.append((left, row))
        left += taken
    return places, row + 1
