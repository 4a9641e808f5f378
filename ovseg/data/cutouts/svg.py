"""Scalable pictures from strangers: checked, stripped, rendered.

An SVG is a program of sorts: it can name files and hosts, define entities that expand without end,
and nest until a renderer's stack is gone. Here the text is parsed with entities forbidden and its
depth and size bounded; every reference out of the document is removed; what remains is rendered
by resvg, which has no scripts and no network. `renderer.py` does all of it in a process of its own.
"""

import io
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from ovseg.data.cutouts.naming import Description, Rejected
from ovseg.errors import MissingDependencyError

MAX_BYTES = 8 << 20
MAX_ELEMENTS = 50_000
MAX_DEPTH = 128
# A drawing with photographs inside is not what it seems without them.
_REFUSED = {"image": "picture inside", "feImage": "picture inside"}
_DROPPED = frozenset({"script", "foreignObject", "metadata", "title", "desc", "namedview"})
_UNITS = {
    "": 1.0,
    "px": 1.0,
    "pt": 96 / 72,
    "pc": 16.0,
    "mm": 96 / 25.4,
    "cm": 96 / 2.54,
    "in": 96.0,
}


@dataclass(frozen=True)
class Drawing:
    """A checked SVG.

    Attributes:
        text: what is safe to render.
        description: title and keywords of its metadata.
        width, height: of the page, in CSS pixels.
    """

    text: str
    description: Description
    width: float
    height: float


def read_svg(data: bytes) -> Drawing:
    """Check an SVG and take out everything that reaches beyond it.

    Raises:
        Rejected: with the reason.
        MissingDependencyError: the extra `cutouts` is not installed.
    """
    if len(data) > MAX_BYTES:
        raise Rejected("file too large")
    root = _parse(data)
    if _local(root.tag) != "svg":
        raise Rejected("not an SVG")
    description = _description(root)
    _strip(root)
    width, height = _page(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return Drawing(text, description, width, height)


def render(drawing: Drawing, side: int) -> bytes:
    """PNG of the drawing, its longer side `side` pixels, without text (no fonts are read).

    Raises:
        Rejected: the renderer refuses it.
        MissingDependencyError: the extra `cutouts` is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise MissingDependencyError("resvg-py", "cutouts", "rendering SVG cut-outs") from error
    zoom = side / max(drawing.width, drawing.height)
    width = max(1, round(drawing.width * zoom))
    height = max(1, round(drawing.height * zoom))
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=drawing.text, width=width, height=height, dpi=96.0, skip_system_fonts=True
        )
    except ValueError as error:
        raise Rejected("cannot be rendered") from error
    return bytes(png)


def _parse(data: bytes) -> ElementTree.Element:
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, iterparse
    except ImportError as error:
        raise MissingDependencyError("defusedxml", "cutouts", "reading SVG cut-outs") from error
    depth = count = 0
    root = None
    try:
        for event, element in iterparse(io.BytesIO(data), events=("start", "end")):
            if event == "end":
                depth -= 1
                continue
            root = element if root is None else root
            depth, count = depth + 1, count + 1
            if depth > MAX_DEPTH or count > MAX_ELEMENTS:
                raise Rejected("too many or too deep elements")
    except DefusedXmlException as error:
        raise Rejected("entities or outside references") from error
    except (ParseError, ValueError, LookupError) as error:
        raise Rejected("not valid XML") from error
    if root is None:
        raise Rejected("not valid XML")
    return root


def _strip(root: ElementTree.Element) -> None:
    """Remove metadata, scripts and references out of the document; refuse embedded pictures."""
    for parent in root.iter():
        reason = _REFUSED.get(_local(parent.tag))
        if reason is not None:
            raise Rejected(reason)
        for child in list(parent):
            if _local(child.tag) in _DROPPED:
                parent.remove(child)
        for key, value in list(parent.attrib.items()):
            name = _local(key)
            if (name == "href" and not value.strip().startswith("#")) or name.startswith("on"):
                del parent.attrib[key]


def _page(root: ElementTree.Element) -> tuple[float, float]:
    """Width and height of the page; without them those of the view box, else the element fails."""
    box = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", root.get("viewBox", ""))]
    width, height = _length(root.get("width")), _length(root.get("height"))
    if (width is None or height is None) and len(box) == 4:
        width, height = box[2], box[3]
    if width is None or height is None or not (0 < width < 1e5 and 0 < height < 1e5):
        raise Rejected("no size")
    root.set("width", str(width))
    root.set("height", str(height))
    return width, height


def _length(value: str | None) -> float | None:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value or "")
    if match is None or match[2] not in _UNITS:
        return None
    return float(match[1]) * _UNITS[match[2]]


def _description(root: ElementTree.Element) -> Description:
    """Title and keywords from the RDF of the metadata, else the SVG's own title."""
    titles: list[str] = []
    keywords: list[str] = []
    for work in root.iter():
        if _local(work.tag) != "Work":
            continue
        titles += [child.text or "" for child in work if _local(child.tag) == "title"]
        for subject in work:
            if _local(subject.tag) == "subject":
                keywords += [item.text or "" for item in subject.iter() if _local(item.tag) == "li"]
    titles += [child.text or "" for child in root if _local(child.tag) == "title"]
    title = next((text.strip() for text in titles if text.strip()), "")
    words = tuple(word.strip().casefold() for word in keywords if word.strip())
    return Description(title, words)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
