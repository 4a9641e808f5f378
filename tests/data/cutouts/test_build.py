import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovseg.data.cutouts.build import build_cutouts
from ovseg.data.cutouts.naming import NameTable
from ovseg.data.cutouts.request import CutoutsRequest, plan_cutouts
from ovseg.errors import DataError, OvsegError, UsageError
from tests.data.cutouts.conftest import SHAPES, SVG, polygon, save

pytest.importorskip("resvg_py")
TUX_PAINT = Path("/usr/share/tuxpaint/stamps")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def request_(cutouts: Path, backgrounds: Path, tmp_path: Path) -> CutoutsRequest:
    return CutoutsRequest(cutouts, backgrounds, tmp_path / "out", 90, 3, 96, 0.2)


def table(out: Path) -> list[dict[str, str]]:
    head, *lines = (out / "cutouts.tsv").read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_pictures_captions_and_masks_agree(request_: CutoutsRequest) -> None:
    summary = build_cutouts(request_)
    out, names = request_.out, NameTable()
    assert (summary.train, summary.test) == (72, 18)
    for side, count in (("train", 72), ("test", 18)):
        document = json.loads((out / f"annotations/panoptic_{side}.json").read_text())
        spoken = json.loads((out / f"annotations/captions_{side}.json").read_text())
        category = {item["id"]: item["name"] for item in document["categories"]}
        expected = {1: "cat", 2: "dog"} | ({3: "house", 4: "kite", 5: "star"} if count > 18 else {})
        assert category == expected
        assert len(document["images"]) == len(document["annotations"]) == count
        for image, truth, words in zip(
            document["images"], document["annotations"], spoken["annotations"], strict=True
        ):
            assert image["id"] == truth["image_id"] == words["image_id"]
            picture = cv2.imread(str(out / "images" / side / image["file_name"]))
            caption = (out / "images" / side / image["file_name"]).with_suffix(".txt").read_text()
            mask = cv2.imread(str(out / f"annotations/panoptic_{side}" / truth["file_name"]))
            assert picture.shape == mask.shape == (image["height"], image["width"], 3)
            assert max(picture.shape) == 96
            ids = mask.astype(np.int64) @ [65536, 256, 1]
            areas = {segment["id"]: segment["area"] for segment in truth["segments_info"]}
            assert areas == {int(i): int((ids == i).sum()) for i in np.unique(ids) if i}
            assert words["caption"] + "\n" == caption
            for segment in truth["segments_info"]:
                name = category[segment["category_id"]]
                assert name in caption.lower() or names.plural(name) in caption.lower()
    assert (out / "classes.txt").read_text().split() == ["cat", "dog", "house", "kite", "star"]
    assert (out / "classes_test.txt").read_text().split() == ["cat", "dog"]
    assert not (out / ".build").exists()


def test_no_cutout_is_on_both_sides_and_every_file_is_accounted_for(
    request_: CutoutsRequest,
) -> None:
    save(request_.cutouts / "cat-copy.png", polygon(SHAPES["triangle"], (9, 200, 9)), "A cat.")
    (request_.cutouts / "dangling.png").symlink_to("nowhere.png")
    (request_.cutouts / "outside.svg").symlink_to(request_.backgrounds / "0.jpg")
    build_cutouts(request_)
    rows = table(request_.out)
    links = {row["file"]: row["reason"] for row in rows if "link" in row["reason"]}
    assert sorted(links) == ["dangling.png", "outside.svg"]
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["duplicate_group"], set()).add(row["side"])
    assert all(len(found) == 1 for found in sides.values())
    by_file = {row["file"]: row for row in rows}
    assert by_file["cat-copy.png"]["side"] == by_file["animals/cat.png"]["side"]
    assert by_file["clip/house.svg"]["entity"] == "house"
    assert len(rows) == 10


def test_the_same_seed_gives_the_same_bytes_at_any_number_of_workers(
    request_: CutoutsRequest, tmp_path: Path
) -> None:
    build_cutouts(request_)
    again = dataclasses.replace(request_, out=tmp_path / "again")
    build_cutouts(again, workers=2)
    assert contents(request_.out) == contents(again.out)
    other = dataclasses.replace(request_, out=tmp_path / "other", seed=4)
    build_cutouts(other)
    assert (
        contents(other.out)["images/train/000000000.jpg"]
        != (contents(again.out)["images/train/000000000.jpg"])
    )


def test_a_longer_set_begins_with_the_shorter_one(request_: CutoutsRequest, tmp_path: Path) -> None:
    build_cutouts(dataclasses.replace(request_, count=20))
    build_cutouts(dataclasses.replace(request_, count=60, out=tmp_path / "more"))
    few, more = contents(request_.out), contents(tmp_path / "more")
    pictures = [name for name in few if name.startswith("images/")]
    assert len(pictures) == 40
    assert all(few[name] == more[name] for name in pictures)


def test_an_interrupted_build_goes_on_to_the_same_bytes(
    request_: CutoutsRequest, tmp_path: Path
) -> None:
    whole = dataclasses.replace(request_, out=tmp_path / "whole")
    finished = build_cutouts(whole)
    for stage in ("reading cut-outs", "reading photographs", "composing scenes"):
        # The first report of a stage tells what an earlier run has left, the second one piece.
        reports = 0

        def stop(name: str, done: int, total: int, stage: str = stage) -> None:
            nonlocal reports
            reports += name == stage
            if reports == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_cutouts(request_, progress=stop)
    steps: list[tuple[str, int, int]] = []
    assert build_cutouts(request_, progress=lambda *step: steps.append(step)) == finished
    assert contents(request_.out) == contents(whole.out)
    starts = {name: done for name, done, _ in reversed(steps)}
    assert starts == {"reading cut-outs": 7, "reading photographs": 3, "composing scenes": 64}
    assert build_cutouts(request_) == finished  # now read, not built


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bytes(
    request_: CutoutsRequest, tmp_path: Path
) -> None:
    whole = dataclasses.replace(request_, out=tmp_path / "whole")
    build_cutouts(whole)
    command = [
        *(sys.executable, "-m", "ovseg_cli", "build-dataset", "cutouts"),
        *("--cutouts", str(request_.cutouts), "--backgrounds", str(request_.backgrounds)),
        *("--count", "90", "--seed", "3", "--size", "96", "--test-share", "0.2"),
        *("--output", str(request_.out), "--workers", "2"),
    ]
    for wanted in (5, 70):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(request_.out.rglob("*.jpg"))) < wanted:
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = {k: v for k, v in contents(request_.out).items() if "/." not in k}
    assert found == contents(whole.out)


def test_hostile_and_broken_files_are_counted_by_reason(request_: CutoutsRequest) -> None:
    folder, thing = request_.cutouts, polygon(SHAPES["bolt"], (1, 2, 3))
    save(folder / "wordless.png", thing, None)
    save(folder / "opaque.png", np.full((120, 120, 4), 255, np.uint8), "A wall.")
    save(folder / "empty.png", np.zeros((120, 120, 4), np.uint8), "A ghost.")
    save(folder / "tiny.png", thing[::8, ::8], "A flea.")
    save(folder / "cut.png", thing, "A cat.")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:150])
    (folder / "zero.png").write_bytes(b"")
    (folder / "zero.txt").write_text("A hole.")
    (folder / "bomb.svg").write_text('<!DOCTYPE svg [<!ENTITY a "aa">]><svg>&a;</svg>')
    (folder / "photo.svg").write_text(SVG.format('<image href="x.png"/>'))
    (request_.backgrounds / "page.jpg").write_text("<html>not found</html>")
    summary = build_cutouts(request_)
    assert summary.rejected == {
        "no transparency": 1,
        "damaged picture": 1,
        "entities or outside references": 1,
        "no words beside it": 1,
        "not a picture": 1,
        "not a usable photograph": 1,
        "nothing visible": 1,
        "picture inside": 1,
        "too small": 1,
    }
    assert Counter(row["reason"] for row in table(request_.out) if row["reason"]) == (
        Counter(summary.rejected)
    )


def test_an_entity_in_the_photographs_name_is_not_put_on_it(request_: CutoutsRequest) -> None:
    for path in request_.backgrounds.iterdir():
        path.rename(path.with_name(f"two-cats-{path.name}"))
    build_cutouts(dataclasses.replace(request_, test_share=0))
    captions = [path.read_text() for path in (request_.out / "images/train").glob("*.txt")]
    assert len(captions) == 90
    assert not any("cat" in caption for caption in captions)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"count": 0}, UsageError, "--count"),
        ({"size": 8}, UsageError, "--size"),
        ({"test_share": 2.0}, UsageError, "--test-share"),
        ({"cutouts": Path("nowhere")}, DataError, "no such folder: nowhere"),
        ({"names": Path("nowhere.toml")}, DataError, r"nowhere\.toml"),
    ],
)
def test_requests_without_sense_are_refused(
    request_: CutoutsRequest, change: dict, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        plan_cutouts(dataclasses.replace(request_, **change))


def test_a_folder_with_something_else_in_it_is_left_alone(request_: CutoutsRequest) -> None:
    build_cutouts(dataclasses.replace(request_, count=4))
    with pytest.raises(UsageError, match=r"built otherwise \(count, seed differ\)"):
        build_cutouts(dataclasses.replace(request_, count=5, seed=9))
    (request_.out / "summary.json").unlink()
    with pytest.raises(UsageError, match="not empty"):
        build_cutouts(request_)


def test_nothing_usable_is_one_clear_error_and_leaves_nothing(
    request_: CutoutsRequest, tmp_path: Path
) -> None:
    poor = tmp_path / "poor"
    save(poor / "a.png", polygon(SHAPES["bolt"], (1, 2, 3)), "Excited!")
    with pytest.raises(DataError, match=r"no usable cut-out .*words not understood: 1"):
        build_cutouts(dataclasses.replace(request_, cutouts=poor))
    save(poor / "b.png", polygon(SHAPES["bolt"], (1, 2, 3)), "A kite.")
    with pytest.raises(DataError, match="--test-share 0"):
        build_cutouts(dataclasses.replace(request_, cutouts=poor))
    assert not any(request_.out.iterdir())


@pytest.mark.slow
def test_real_stamps(backgrounds: Path, tmp_path: Path) -> None:
    if not TUX_PAINT.is_dir():
        pytest.skip("the Debian package tuxpaint-stamps-default is not installed")
    request = CutoutsRequest(TUX_PAINT / "animals", backgrounds, tmp_path / "out", 20)
    summary = build_cutouts(request)
    assert summary.cutouts["train"] + summary.cutouts["test"] > 100
    assert {"cat", "elephant", "butterfly"} <= set(
        (request.out / "classes.txt").read_text().split()
    )


@pytest.mark.parametrize("name", ["s3://bucket/scenes", "a\0b"])
def test_scenes_are_written_to_a_folder(request_: CutoutsRequest, name: str) -> None:
    with pytest.raises(UsageError, match=r"is an address|is no path"):
        build_cutouts(dataclasses.replace(request_, out=Path(name)))
    assert not Path("s3:").exists()


DAMAGE = [
    ("request.json", b"[]"),
    ("request.json", b"{}"),
    ("request.json", b"[" * 100_000),
    ("cutouts-0000000.json", b"{}"),
    ("cutouts-0000000.json", b'{"cutouts": [{"source": "a"}], "rejected": []}'),
    ("backgrounds-0000000.json", b"\xff"),
    ("pixels/cutouts/000000.png", b"no picture"),
]


def test_what_was_begun_is_looked_at(
    request_: CutoutsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a half-built set says is believed."""
    request = dataclasses.replace(request_, count=40, test_share=0.0)
    with monkeypatch.context() as patch:
        patch.setattr("ovseg.data.cutouts.build.make_chunk", _stop)
        with pytest.raises(KeyboardInterrupt):
            build_cutouts(request)
    for number, (name, content) in enumerate(DAMAGE):
        again = dataclasses.replace(request, out=tmp_path / f"again{number}")
        shutil.copytree(request.out, again.out)
        (again.out / ".build" / name).write_bytes(content)
        with pytest.raises(OvsegError):
            build_cutouts(again)
        assert (again.out / ".build" / name).read_bytes() == content


def _stop(_: object) -> None:
    raise KeyboardInterrupt
