"""The page, in a real browser.

OVSEG_PICTURES=FOLDER has the pictures of the docs taken anew.
"""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

CHELSEA = ROOT / "examples" / "chelsea.png"
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
    command = [sys.executable, "-m", "ovseg_cli", "demo", "--model", "starter", "--port", "0"]
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
def tab(browser: Any, asked: list[str]) -> Any:
    """One for all tests, since a new one has to load everything again."""
    tab = browser.new_page(accept_downloads=True)
    tab.set_default_timeout(60_000)
    tab.on("request", lambda request: asked.append(request.url))
    return tab


@pytest.fixture
def page(tab: Any, address: str) -> Any:
    tab.set_viewport_size({"width": 1280, "height": 820})
    tab.goto(address)
    tab.wait_for_selector("#words input, #words textarea")
    return tab


def type_words(page: Any, words: str) -> None:
    page.fill("#words input, #words textarea", words)


def drop(page: Any, photo: Path) -> None:
    page.set_input_files("#photo input[type=file]", str(photo))


def picture(page: Any, name: str) -> None:
    """For the docs, where they want it."""
    if folder := os.environ.get("OVSEG_PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_a_photo_is_segmented_and_can_be_asked(
    page: Any, tmp_path: Path, asked: list[str], address: str, proxy: Proxy
) -> None:
    drop(page, CHELSEA)
    stage = page.wait_for_selector("#found .stage").bounding_box()
    page.mouse.move(stage["x"] + 0.45 * stage["width"], stage["y"] + 0.5 * stage["height"])
    page.wait_for_selector("#found .tip:not([hidden])")
    assert re.fullmatch(r"cat [01]\.\d{3}", page.inner_text("#found .tip"))
    page.mouse.move(stage["x"] + stage["width"] - 8, stage["y"] + 20)
    assert page.inner_text("#found .tip") == "background"
    picture(page, "demo")
    page.focus("#found button")
    page.wait_for_selector("#found .only:not([hidden])")
    assert "cat" in page.inner_text("#found button:focus")
    with page.expect_download() as download:
        page.click("text=Label map (PNG)")
    labels = tmp_path / "labels.png"
    download.value.save_as(labels)
    assert download.value.suggested_filename == "chelsea.labels.png"
    import ovseg

    expected = ovseg.segment(CHELSEA, "cat,dog", device="cpu").labels
    assert (np.asarray(Image.open(labels)) == expected).all()
    elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert (elsewhere, proxy.asked) == ([], [])


def test_a_broken_image_is_one_line(page: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(CHELSEA.read_bytes()[:2000])
    drop(page, broken)
    assert "the image: damaged image" in page.inner_text("#found [role=alert]")
    broken.write_bytes(b"no image at all")
    page.reload()
    page.wait_for_selector("#photo input[type=file]", state="attached")
    drop(page, broken)
    page.wait_for_selector("text=not an image in a format that is read here")


def test_two_hundred_words_by_keyboard_on_a_telephone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    drop(page, CHELSEA)
    page.wait_for_selector("#found .stage")
    type_words(page, ",".join(["cat", *(f"qzxv{number}" for number in range(199))]))
    page.keyboard.press("Enter")
    page.wait_for_selector("text=and 194 more")
    assert "cat" in page.inner_text("#found ul")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    picture(page, "demo-telephone")


def test_words_are_text_and_the_threshold_moves(page: Any) -> None:
    drop(page, CHELSEA)
    page.wait_for_selector("#found .stage")
    type_words(page, "<b>qzxv</b>, cat")
    page.click("#segment")
    page.wait_for_selector("#found .note")
    assert "<b>qzxv</b>" in page.inner_text("#found .note") + page.inner_text("#found ul")
    page.click("text=How")
    page.fill("#steps input[type=number]", "6")
    page.keyboard.press("Tab")
    before = page.inner_text("#found ul")
    page.click("#segment")
    page.wait_for_function(
        "old => document.querySelector('#found ul')?.innerText != old", arg=before
    )
