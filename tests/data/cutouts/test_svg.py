import io
import multiprocessing
from multiprocessing.connection import Connection

import numpy as np
import pytest
from PIL import Image

from ovseg.data.cutouts import renderer as rendering
from ovseg.data.cutouts.naming import Rejected
from ovseg.data.cutouts.renderer import Renderer
from ovseg.data.cutouts.svg import MAX_DEPTH, read_svg, render
from tests.data.cutouts.conftest import RDF, SVG

pytest.importorskip("resvg_py")
pytest.importorskip("defusedxml")
SQUARE = '<rect width="50" height="50" fill="red"/>'


def bomb(levels: int) -> bytes:
    """A drawing whose references double with every level."""
    groups = "".join(
        f'<g id="a{n + 1}"><use xlink:href="#a{n}"/><use xlink:href="#a{n}"/></g>'
        for n in range(levels)
    )
    body = (
        f'<defs><rect id="a0" width="9" height="9"/>{groups}</defs><use xlink:href="#a{levels}"/>'
    )
    return SVG.format(body).encode()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_renders_at_the_size_asked_for_with_transparency() -> None:
    rgba = pixels(render(read_svg(SVG.format(SQUARE).encode()), 200))
    assert rgba.shape == (200, 200, 4)
    assert tuple(rgba[50, 50]) == (255, 0, 0, 255)
    assert rgba[150, 150, 3] == 0


@pytest.mark.parametrize("unit", ["mm", "pt", "in", "px", ""])
def test_page_sizes_in_any_unit(unit: str) -> None:
    text = SVG.format(SQUARE).replace('"100"', f'"100{unit}"')
    assert pixels(render(read_svg(text.encode()), 64)).shape == (64, 64, 4)


def test_title_and_keywords_come_from_the_metadata() -> None:
    words = RDF.format(" Red  Fox ", "<rdf:li>Fox</rdf:li><rdf:li></rdf:li><rdf:li>animal</rdf:li>")
    description = read_svg(SVG.format(words + SQUARE).encode()).description
    assert description.text == "Red  Fox"
    assert description.keywords == ("fox", "animal")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid XML"),
        (b"\x89PNG....", "not valid XML"),
        (b"<html/>", "not an SVG"),
        (b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>', "entities"),
        (b'<!DOCTYPE svg [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>', "entities"),
        (b"<svg>" + b"<g>" * MAX_DEPTH + b"</g>" * MAX_DEPTH + b"</svg>", "too deep"),
        (b"<svg>" + b"<g/>" * 60_000 + b"</svg>", "too many"),
        (SVG.format('<image xlink:href="secret.png" width="9" height="9"/>').encode(), "picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>', "no size"),
        (SVG.replace("100", "1e999").encode(), "no size"),
    ],
)
def test_hostile_and_broken_drawings_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        read_svg(data)


def test_nothing_that_points_out_of_the_document_is_left() -> None:
    body = (
        '<script>fetch("http://x")</script><use xlink:href="http://x/y.svg#z"/>'
        '<rect onclick="x()" width="9" height="9"/><use href="file:///etc/passwd"/>'
    )
    text = read_svg(SVG.format(body).encode()).text
    assert not any(word in text for word in ("fetch", "y.svg", "onclick", "passwd"))


def test_a_drawing_that_takes_too_long_is_given_up_and_the_next_one_rendered() -> None:
    good = SVG.format(SQUARE).encode()
    with Renderer(timeout=0.05) as renderer:
        with pytest.raises(Rejected, match="takes too long"):
            renderer.render(bomb(17), 64)
        renderer._timeout = 30
        assert pixels(renderer.render(good, 32)).shape == (32, 32, 4)


def test_a_renderer_that_dies_is_counted_and_replaced() -> None:
    with Renderer() as renderer:
        renderer.describe(SVG.format(SQUARE).encode())
        assert renderer._process is not None
        renderer._process.kill()
        renderer._process.join()
        with pytest.raises(Rejected, match="kills the renderer"):
            renderer.render(SVG.format(SQUARE).encode(), 32)
        assert renderer.render(SVG.format(SQUARE).encode(), 32)


def _try_to_open(connection: Connection, path: str) -> None:
    rendering._give_up_rights()
    try:
        with open(path, "rb"):
            connection.send("opened")
    except OSError:
        connection.send("refused")


def test_the_rendering_process_cannot_open_files() -> None:
    pytest.importorskip("resource")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_try_to_open, args=(theirs, __file__))
    process.start()
    assert ours.recv() == "refused"
    process.join()
