"""The page, in a real browser.

OVSEG_PICTURES=FOLDER has the pictures of the docs taken anew; there they have 256 colours.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as masks

from tests.conftest import ROOT

EXPORTED = ROOT / "tests" / "compatibility" / "made" / "onnx"
CHELSEA = ROOT / "examples" / "chelsea.png"
WORDS = "#words :is(input, textarea)"
pytest.importorskip("gradio", reason="the extra demo is not here")


@dataclass
class Proxy:
    """Where all requests to elsewhere would go."""

    address: str
    asked: list[bytes] = field(default_factory=list)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = Proxy(f"http://127.0.0.1:{listening.getsockname()[1]}")

        def listen() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                found.asked.append(connection.recv(200))
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield found
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def address(browser: Any, proxy: Proxy, tmp_path_factory: Any) -> Iterator[str]:
    """Of a page that runs, once there is a browser for it."""
    environment = {
        **os.environ,
        **{f"{name}_PROXY": proxy.address for name in ("HTTP", "HTTPS", "ALL")},
        "NO_PROXY": "127.0.0.1,localhost",
        "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio")),
        "OVSEG_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    models = ("--model", "starter", "--model", str(EXPORTED))
    command = [sys.executable, "-m", "ovseg_cli", "demo", *models, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://[\d.:]+", line)
    assert found, line + process.stderr.read()
    yield found[0]
    process.terminate()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """What the page has asked for."""
    return []


@pytest.fixture(scope="module")
def page(browser: Any, address: str, asked: list[str]) -> Any:
    """One for all tests, since a new one has to load everything again."""
    page = browser.new_page(accept_downloads=True, viewport={"width": 1280, "height": 820})
    page.set_default_timeout(60_000)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector(WORDS)
    return page


def answer(page: Any, act: Callable[[], object]) -> str:
    """The text of what is shown next, once something was done."""
    shown = "#found :is(.found, .problem)"
    page.evaluate(f"document.querySelectorAll('{shown}').forEach(each => each.dataset.old = 1)")
    act()
    return str(page.wait_for_selector(f"{shown}:not([data-old])").inner_text())


def drop(page: Any, photo: Path) -> None:
    if page.is_visible("[aria-label='Remove Image']"):
        page.click("[aria-label='Remove Image']")
    page.set_input_files("#photo input[type=file]", str(photo))


def ask(page: Any, words: str) -> None:
    """Type words, and ask by the keyboard."""
    page.fill(WORDS, words)
    page.keyboard.press("Enter")


def download(page: Any, link: str, folder: Path) -> Path:
    with page.expect_download() as found:
        page.click(f"text={link}")
    path = folder / found.value.suggested_filename
    found.value.save_as(path)
    return path


def share(told: str, name: str) -> float:
    """Per cent of the photo, as the legend says."""
    found = re.search(rf"{name} ([\d.]+)%", told)
    return float(found[1]) if found else 0.0


def picture(page: Any, name: str) -> None:
    """For the docs, where they want it."""
    if folder := os.environ.get("OVSEG_PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_a_photo_is_segmented_and_can_be_asked(
    page: Any, tmp_path: Path, asked: list[str], address: str, proxy: Proxy
) -> None:
    import ovseg

    answer(page, lambda: drop(page, CHELSEA))
    stage = page.wait_for_selector("#found .stage").bounding_box()
    page.mouse.move(stage["x"] + stage["width"] - 8, stage["y"] + 20)
    page.wait_for_selector("#found .tip:not([hidden])")
    assert page.inner_text("#found .tip") == "background"
    page.mouse.move(stage["x"] + 0.45 * stage["width"], stage["y"] + 0.5 * stage["height"])
    assert re.fullmatch(r"cat (0\.\d{3}|1\.000)", page.inner_text("#found .tip"))
    picture(page, "demo")
    page.focus("#found button")
    page.wait_for_selector("#found .only:not([hidden])")
    assert "cat" in page.inner_text("#found button:focus")
    expected = ovseg.segment(CHELSEA, "cat,dog", device="cpu").labels
    labels = download(page, "Label map (PNG)", tmp_path)
    assert labels.name == "chelsea.labels.png"
    assert (np.asarray(Image.open(labels)) == expected).all()
    dataset = json.loads(download(page, "COCO (JSON)", tmp_path).read_text())
    assert [each["file_name"] for each in dataset["images"]] == ["chelsea"]
    for each in dataset["annotations"]:
        assert (masks.decode(each["segmentation"]) == (expected == each["category_id"])).all()
    assert {each["category_id"] for each in dataset["annotations"]} == set(np.unique(expected)) - {
        0
    }
    elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert (elsewhere, proxy.asked) == ([], [])


def test_examples_the_threshold_and_another_model(page: Any) -> None:
    told = answer(page, lambda: page.click("#examples button >> nth=2"))
    assert page.input_value(WORDS) == "cup,spoon"
    before = share(told, "cup")
    assert before > 5
    page.click("text=How")
    page.wait_for_selector("#steps input[type=range]")  # the part has opened
    page.wait_for_timeout(1000)  # while an answer is put in place, Gradio may lose a key
    told = answer(page, lambda: page.press("#steps input[type=range]", "End"))
    assert share(told, "cup") < before - 1
    page.click("input[aria-label=Model]")
    told = answer(page, lambda: page.click(f"[role=option]:has-text('{EXPORTED.name}')"))
    assert (share(told, "cup"), share(told, "spoon")) != (before, 0)
    page.click("input[aria-label=Model]")
    answer(page, lambda: page.click("[role=option]:has-text('starter')"))
    told = answer(page, lambda: page.click("[aria-label='Reset to default value']"))
    assert share(told, "cup") == before
    page.click("text=How")


def test_what_is_wrong_is_one_line_and_words_are_text(page: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(CHELSEA.read_bytes()[:2000])
    assert "the image: damaged image" in answer(page, lambda: drop(page, broken))
    broken.write_bytes(b"no image at all")
    told = answer(page, lambda: drop(page, broken))
    assert "not an image in a format that is read here" in told
    assert page.get_attribute("#found .problem", "role") == "alert"
    answer(page, lambda: drop(page, CHELSEA))
    assert "<b>qzxv</b>" in answer(page, lambda: ask(page, "<b>qzxv</b>, cat"))


def test_a_telephone_its_camera_and_two_hundred_words_by_keyboard(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    words = ",".join(["cat", *(f"qzxv{number}" for number in range(199))])
    told = answer(page, lambda: ask(page, words))
    assert share(told, "cat") > 10 and "and 194 more" in told
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    picture(page, "demo-telephone")
    page.fill(WORDS, "cat,dog")
    for _ in range(12):  # the way to the examples
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#examples') !== null"):
            break
    told = answer(page, lambda: page.keyboard.press("Enter"))
    assert page.input_value(WORDS) == "cat,dog" and share(told, "cat") > 10
    page.click("[aria-label='Remove Image']")
    page.click("[aria-label='Capture from camera']")
    page.click("text=Click to Access Webcam")
    seen = "(video => video?.readyState >= 2 && video.videoWidth > 0)"
    page.wait_for_function(f"{seen}(document.querySelector('#photo video'))")
    told = answer(page, lambda: page.click("[aria-label='capture photo']"))
    assert "Only background" in told or share(told, "cat") + share(told, "dog") > 0
    assert page.get_attribute("#found a[download]", "download") != "chelsea.labels.png"
