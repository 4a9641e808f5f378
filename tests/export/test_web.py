"""The page with the model in it, in a real browser, opened from the disk."""

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovseg.api import export_model
from ovseg.errors import DownloadError, OvsegError, UsageError
from ovseg.export import web
from ovseg.files import sha256
from ovseg.inference.segmenter import Segmenter
from ovseg.models.exported import BuiltInModel
from ovseg.models.starter.words import WordTable
from tests.conftest import ROOT

CHELSEA = ROOT / "examples" / "chelsea.png"
PHRASES = (
    *("cat", "Cats", "dining tables", "red sports car", "a dog", "fire hydrant", "sky", "T-shirt"),
    *("skies", "potted_plant", "policemen", "zzyzx", "mice", "hot-dog", "sea  lion", "x", "glass"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export; its runtime is fetched once, where the registry can be reached."""
    pytest.importorskip("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSEG_CACHE", str(tmp_path_factory.getbasetemp().parent / "runtime"))
        try:
            web._runtime_archive()
        except DownloadError as error:
            pytest.skip(str(error))
        patch.setattr("ovseg.export.verify.REPEATS", 1)  # how long it takes is not asked here
        output = tmp_path_factory.mktemp("web") / "page"
        done = export_model("starter", output, "web", images=[str(CHELSEA)])
    assert done.report.agreement > 0.999
    return output


@pytest.fixture(scope="module")
def page(browser: Any, folder: Path) -> Any:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(120_000)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto((folder / "index.html").as_uri())
    return page


def test_the_folder_is_small_and_says_whose_it_is(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) < 80e6
    assert "MIT" in (folder / "NOTICE.txt").read_text()
    assert not (folder / "graph.onnx").exists()


def test_a_photo_has_the_labels_of_ovseg_segment(page: Any) -> None:
    page.fill("#words", "cat,dog,sofa,okapi")
    page.set_input_files("#photo", str(CHELSEA))
    page.wait_for_selector("text=451 × 300 pixels labelled")
    wanted = Segmenter(BuiltInModel("cpu")).segment(CHELSEA, "cat,dog,sofa,okapi")
    labels = np.array(page.evaluate("Array.from(OVSEG.found.labels)")).reshape(300, 451)
    assert (labels != wanted.labels).sum() < 20
    assert len(np.unique(labels)) > 1
    assert "okapi" in page.inner_text("#state")
    assert "cat" in page.inner_text("#legend")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    if pictures := os.environ.get("OVSEG_PICTURES"):
        page.screenshot(path=f"{pictures}/web.png")
    assert {url.partition(":")[0] for url in page.asked} <= {"file", "blob", "data"}


def test_words_are_looked_up_as_in_python(page: Any) -> None:
    table = WordTable()
    rows = page.evaluate(
        "phrases => phrases.map(phrase => {"
        "  const row = new Float32Array(width), found = resolve(phrase);"
        "  embed(found.word, row); return [found.word, Array.from(row)]; })",
        PHRASES,
    )
    for phrase, (word, row) in zip(PHRASES, rows, strict=True):
        assert word == table.resolve(phrase), phrase
        known = table.embedding(word) if word else np.zeros(table.width)  # it has no text encoder
        np.testing.assert_allclose(row, known, atol=1e-5, err_msg=phrase)


def test_what_makes_no_sense_is_one_line(page: Any, tmp_path: Path) -> None:
    for words, message in (
        ("", "at least one class"),
        ("cat,Cat", "more than once"),
        ("cat;kitten", "one name for a class"),
        (",".join(f"w{number}" for number in range(301)), "more than 300"),
    ):
        page.fill("#words", words)
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#problem:has-text('{message}')")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    page.set_input_files("#photo", str(broken))
    page.wait_for_selector("#problem:has-text('no image that this browser can read')")


def test_a_runtime_that_is_another_one_is_deleted(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = own_cache / "web" / f"onnxruntime-web-{web.VERSION}.tgz"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"fetch .* again"):
        export_model("starter", tmp_path / "page", "web")
    assert not place.exists()
    with tarfile.open(place, "w:gz"):
        pass
    monkeypatch.setattr(web, "SHA256", sha256(place))
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        export_model("starter", tmp_path / "page", "web")
    place.unlink()
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with pytest.raises(DownloadError, match=rf"Fetch {web.ADDRESS} .* put it at {place}"):
        export_model("starter", tmp_path / "page", "web")
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("ovsegmentor-vitb16-bert", {}, "for starter"),
        ("starter", {"end_to_end": True}, "do not go with"),
        ("starter", {"hub_layout": True}, "do not go with"),
    ],
)
def test_what_no_page_is_made_of(
    model: str, options: dict[str, bool], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(model, tmp_path / "page", "web", **options)


def test_such_a_folder_is_no_model(folder: Path) -> None:
    with pytest.raises(OvsegError):
        Segmenter.from_pretrained(folder)
