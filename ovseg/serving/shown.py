"""A segmentation as a piece of HTML that carries all it needs: picture, scores, files."""

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovseg.inference.overlay import colours, painted
from ovseg.inference.result import Segmentation
from ovseg.models.interface import UnknownPhrase
from ovseg.serving.answer import Doubts

LONGEST_SIDE = 1280
"""Of the picture on the page, in pixels; files have the photo's own size."""
_SCORE_BITS = 15
_NAMED = 5


def style() -> str:
    """The style sheet of what is shown."""
    return files("ovseg.serving").joinpath("viewer.css").read_text(encoding="utf-8")


def script() -> str:
    """The program that follows the pointer, with `element` around what is shown."""
    return files("ovseg.serving").joinpath("viewer.js").read_text(encoding="utf-8")


def shown(found: Segmentation, doubts: Doubts, name: str) -> str:
    """The result as HTML.

    Args:
        found: what is in a photo.
        doubts: about the words.
        name: of the photo, without its suffix.
    """
    labels, scores, image = _on_screen(found)
    overlay = painted(image, labels, np.arange(len(found.classes)), 0.55)
    names = escape(json.dumps(found.classes))
    most = max(float(scores.max(initial=0)), 1.0)  # scores of some models exceed 1
    return "\n".join(
        [
            f'<div class="found" data-names="{names}" data-most="{most}">',
            '<div class="stage">',
            f'<img alt="{escape(repr(found)[1:-1])}" src="{_data(overlay, "JPEG")}">',
            f'<img class="hits" alt="" src="{_data(_packed(labels, scores / most), "PNG")}">',
            '<canvas class="only" hidden></canvas><output class="tip" hidden></output></div>',
            _legend(found),
            *_notes(found, doubts),
            _files(found, name),
            "</div>",
        ]
    )


def problem(message: str) -> str:
    """What went wrong, as HTML."""
    return f'<p class="problem" role="alert">{escape(message)}</p>'


def _on_screen(
    found: Segmentation,
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Labels, scores and image, every so manieth pixel of a large photo."""
    step = -(-max(found.labels.shape) // LONGEST_SIDE)
    every = (slice(None, None, step), slice(None, None, step))
    return found.labels[every], found.scores[every], np.ascontiguousarray(found.image[every])


def _packed(
    labels: npt.NDArray[np.uint16], scores: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Label and score, 0..1, of each pixel in 24 bits, uint8 [H, W, 3]."""
    most = (1 << _SCORE_BITS) - 1
    share = np.round(np.clip(scores, 0, 1) * most).astype(np.uint32)
    value = labels.astype(np.uint32) << _SCORE_BITS | share
    return np.stack([value >> 16, value >> 8 & 255, value & 255], axis=-1).astype(np.uint8)


def _legend(found: Segmentation) -> str:
    entries = [
        f'<li><button type="button" data-label="{each.label}"><span class="swatch" '
        f'style="background:rgb{tuple(colours(np.array(each.label)).tolist())}"></span>'
        f"{escape(each.name)} {each.share:.1%}, score {each.score:.3f}</button></li>"
        for each in found.shares
        if each.label
    ]
    return f"<ul>{''.join(entries)}</ul>" if entries else "<p>Only background was found.</p>"


def _notes(found: Segmentation, doubts: Doubts) -> list[str]:
    """What is to be said of the words and the scores."""
    notes = []
    if doubts.unknown:
        notes.append(f"Not known to the model: {_unknown(doubts.unknown)}.")
    if doubts.partly:
        parts = ", ".join(f"{each.understood} of {each.phrase}" for each in doubts.partly[:_NAMED])
        notes.append(f"Understood only in part: {parts}.")
    if found.is_doubtful:
        notes.append("Every score is near the threshold: what was found may not be there.")
    return [f'<p class="note">{escape(note)}</p>' for note in notes]


def _unknown(words: Sequence[UnknownPhrase]) -> str:
    told = [
        f"{each.phrase} (near: {', '.join(each.nearest)})" if each.nearest else each.phrase
        for each in words[:_NAMED]
    ]
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(told) + more


def _files(found: Segmentation, name: str) -> str:
    """Links that hold the files themselves."""
    labels = io.BytesIO()
    found.label_image().save(labels, "PNG")
    dataset = json.dumps(found.to_coco(name)).encode()
    links = [
        _link(f"{name}.labels.png", "Label map (PNG)", "image/png", labels.getvalue()),
        _link(f"{name}.coco.json", "COCO (JSON)", "application/json", dataset),
    ]
    return f'<p class="files">{" ".join(links)}</p>'


def _link(file: str, text: str, kind: str, content: bytes) -> str:
    address = f"data:{kind};base64,{b64encode(content).decode()}"
    return f'<a download="{escape(file)}" href="{address}">{text}</a>'


def _data(pixels: npt.NDArray[np.uint8], format: str) -> str:
    """An image as an address."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format, quality=90)
    return f"data:image/{format.lower()};base64,{b64encode(stream.getvalue()).decode()}"
