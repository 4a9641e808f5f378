"""The service answers as the segmenter does, and takes no more than it says."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as masks

from ovseg.data.images import Pixels
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.text import EmbeddingCache
from ovseg.serving.at_work import Task, Worker
from ovseg.serving.limits import Limits
from ovseg.serving.service import service
from tests.serving.conftest import QuickModel, testclient

RAW = {"content-type": "image/png"}


def ask(client: Any, photo: bytes, accept: str = "*/*", **options: object) -> Any:
    options = {"classes": "cat,dog", **options}
    return client.post("/segment", params=options, content=photo, headers={**RAW, "accept": accept})


@pytest.fixture(scope="module")
def expected(small: Pixels) -> Any:
    return Segmenter(QuickModel("cpu")).segment(small, ["cat", "dog"])


def test_answers_are_those_of_the_segmenter(client: Any, photo: bytes, expected: Any) -> None:
    told = ask(client, photo).json()
    assert told["classes"] == expected.summary()["classes"]
    assert (told["width"], told["height"], told["unknown"]) == (96, 64, [])
    labels = np.asarray(Image.open(io.BytesIO(ask(client, photo, format="png").content)))
    assert (labels == expected.labels).all() and labels.any()
    dataset = ask(client, photo, format="rle").json()
    (cat,) = (each for each in dataset["annotations"] if each["category_id"] == 1)
    assert (masks.decode(cat["segmentation"]) == (expected.labels == 1)).all()
    assert Image.open(io.BytesIO(ask(client, photo, format="overlay").content)).width == 96


def test_a_form_and_the_header_accept(client: Any, photo: bytes, expected: Any) -> None:
    form = {"classes": "cat,dog", "threshold": "0.9"}
    files = {"image": ("photo.png", photo, "image/png")}
    found = client.post("/segment?threshold=0.1", data=form, files=files)
    shares = {each["name"]: each["share"] for each in found.json()["classes"]}
    assert shares.get("cat", 0) < expected.shares[0].share, "the form's threshold counts"
    assert ask(client, photo, "image/png").headers["content-type"] == "image/png"
    assert ask(client, photo, "text/html, image/png").json()["doubtful"] in (True, False)
    regions = ask(client, photo, instances=True).json()["regions"]
    assert {"cat"} <= {each["name"] for each in regions}


def test_many_at_once_are_each_answered_rightly(client: Any, photo: bytes, expected: Any) -> None:
    lists = ["cat,dog", "dog,cat", "okapi", "cat,dog"] * 2
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda words: ask(client, photo, classes=words).json(), lists))
    assert told[0]["classes"] == told[3]["classes"] == expected.summary()["classes"]
    assert {each["name"]: each["share"] for each in told[1]["classes"]}["cat"] > 0.1
    assert [each["phrase"] for each in told[2]["unknown"]] == ["okapi"]


REFUSED: list[tuple[int, str, dict[str, Any]]] = [
    (422, "not an image", {"content": b"GIF89a?", "headers": RAW}),
    (422, "no bytes", {"content": b"", "headers": RAW}),
    (415, "send an image", {"content": b"x"}),
    (415, "send an image", {"content": b"x", "headers": {"content-type": "text/html"}}),
    (400, "boundary", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    (413, "200,000 bytes", {"content": bytes(200_001), "headers": RAW}),
    (413, "200,000 bytes", {"content": iter([bytes(150_000)] * 2), "headers": RAW}),
    (422, "field image", {"files": {"picture": b"x"}}),
    (422, "no file in the field image", {"files": {"x": (None, "y")}}),
    (422, "threshold", {"files": {"image": b"x"}, "data": {"threshold": "nan"}}),
    (422, "Extra inputs", {"files": {"image": b"x"}, "data": {"treshold": "1"}}),
    (
        422,
        "classes: given more than once",
        {"files": {"image": b"x"}, "data": {"classes": ["a", "b"]}},
    ),
]


@pytest.mark.parametrize(("status", "message", "request_"), REFUSED)
def test_what_is_refused_says_why(
    status: int, message: str, request_: dict[str, Any], client: Any
) -> None:
    answer = client.post("/segment", params={"classes": "cat"}, **request_)
    assert answer.status_code == status
    assert message in answer.json()["detail"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": " , "}, "empty"),
        ({"classes": "cat,Cat"}, "named more than once"),
        ({"classes": ",".join(f"w{number}" for number in range(51))}, "more than 50 phrases"),
        ({"classes": "x" * 201}, "more than 200 characters"),
        ({"format": "jpeg"}, "format"),
        ({"classes": ["cat", "dog"]}, "classes: given more than once"),
        ({"background": "0"}, "say true or false"),
        ({"treshold": 1}, "treshold"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], message: str, client: Any, photo: bytes
) -> None:
    answer = ask(client, photo, **options)
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_large_images_and_names_of_files(client: Any, photo: bytes) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (400, 400)).save(stream, "PNG")
    assert "megapixels" in ask(client, stream.getvalue()).json()["detail"]
    told = ask(client, photo, classes="@pyproject.toml").json()
    assert [each["phrase"] for each in told["unknown"]] == ["@pyproject.toml"]


def test_figures_and_health(client: Any, photo: bytes) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": "starter", "requests": 0}
    ask(client, photo)
    figures = client.get("/metrics").text
    for name in ('ovseg_requests_total{status="200"}', "ovseg_batch_images_count"):
        (line,) = (line for line in figures.splitlines() if line.startswith(name))
        assert float(line.split()[1]) > 0
    assert "ovseg_requests_at_once 0" in figures


def test_the_page_about_it_asks_for_nothing_from_elsewhere(client: Any) -> None:
    page = client.get("/").text
    assert "swagger" in page
    assert "//" not in page.replace("// ", "")
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_more_than_there_are_places_for_are_sent_away_and_late_ones_too(
    photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, go = threading.Event(), threading.Event()

    def work(self: Worker, task: Task, images: Any) -> list[Exception]:
        busy.set()
        assert go.wait(10)
        return [ValueError("unseen")] * len(images)

    monkeypatch.setattr(Worker, "__call__", work)
    app = service(QuickModel("cpu"), Limits(requests=1, seconds=0.3))
    with testclient.TestClient(app) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, client, photo)
        assert busy.wait(10)
        second = ask(client, photo)
        assert second.status_code == 503 and int(second.headers["retry-after"]) >= 1
        assert client.get("/health").json()["requests"] == 1
        assert first.result().status_code == 504
        go.set()
        assert client.get("/health").json()["requests"] == 0


def test_strangers_words_are_kept_for_a_while_alone(small: Pixels) -> None:
    """Or whoever sends new words without end would fill memory and disk."""
    cache = EmbeddingCache(QuickModel("cpu"), most=3)
    first = cache.get(["cat", "dog"], ("{}",))
    for number in range(5):
        cache.get([f"word {number}", "cat"], ("{}",))
    (known,) = cache._known.values()
    assert len(known) == 3
    assert (cache.get(["cat", "dog"], ("{}",)) == first).all()
    assert len(cache.get([f"w{number}" for number in range(9)], ("{}",))) == 9
    assert not list(cache._path(("{}",)) or [])
