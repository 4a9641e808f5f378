"""Names of results: two images never share one."""

import os
import random
from pathlib import Path

import pytest

from ovseg.data.annotations.formats import FORMATS
from ovseg.inference.result_folder import EXTRAS
from ovseg.inference.result_names import images_to_segment, relative_names, result_names

ENDINGS = (".overlay.png", ".labels.png", ".json", ".rle.json", ".logits.npz", ".groups.png")


def files_of(names: dict[Path, str]) -> list[str]:
    """All files of all results, as a file system without case sees them."""
    written = [f"{name}{ending}".casefold() for name in names.values() for ending in ENDINGS]
    return [*written, *(each.file for each in FORMATS.values())]


def test_a_name_of_its_own_is_the_stem() -> None:
    assert result_names([Path("a/x.png"), Path("b/y.jpg")]) == {
        Path("a/x.png"): "x",
        Path("b/y.jpg"): "y",
    }


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["photo.jpg", "photo.png", "photo.jpg.png"], ["photo.jpg", "photo.png", "photo.jpg.png"]),
        (["photo.jpg.png", "photo.png", "photo.jpg"], ["photo.jpg.png", "photo.png", "photo.jpg"]),
        (["a/x.png", "b/x.png", "c/z.png"], ["a__x.png", "b__x.png", "z"]),
        (["a__x.png", "a/x.png", "x.jpg"], ["a__x", "a__x.png", "x.jpg"]),
        (["x.png", "X.jpg"], ["x.png", "X.jpg"]),
        (["x.png", "x.rle.png"], ["x", "x.rle.png"]),
        (["annotations.png"], ["annotations.png"]),
        (["annotations.labelstudio.png"], ["annotations.labelstudio.png"]),
        (["x.png", "y/../x.png"], ["x.png", "x.png-2"]),
    ],
)
def test_names_that_would_be_equal(images: list[str], names: list[str]) -> None:
    found = result_names([Path(image) for image in images])
    assert [found[Path(image)] for image in images] == names
    assert len(set(files_of(found))) == len(files_of(found))


def test_a_file_and_its_namesake_one_folder_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    images = [Path("photo.jpg"), Path("../photo.jpg")]
    assert list(result_names(images).values()) == ["sub__photo.jpg", "photo.jpg"]
    assert list(relative_names(images).values()) == ["sub/photo.jpg", "photo.jpg"]


def test_long_names_fit_and_differ() -> None:
    images = [Path(f"{'ä' * 120}{end}.png") for end in "ab"]
    names = result_names(images).values()
    assert len(set(names)) == 2
    assert all(len(os.fsencode(name)) <= 180 for name in names)


PARTS = ("a", "A", "x", "a__x", "x.png", "x.rle", "annotations", "\u00e9", "e\u0301")
SUFFIXES = (".png", ".jpg", ".json.png", "-2.png", "")


def some_path(draw: random.Random) -> Path:
    folders = draw.choices((*PARTS, ".."), k=draw.randrange(3))
    return Path(*folders, draw.choice(PARTS) + draw.choice(SUFFIXES))


@pytest.mark.parametrize("seed", range(200))
def test_no_two_images_write_one_file(seed: int) -> None:
    draw = random.Random(seed)
    images = list({some_path(draw): None for _ in range(draw.randrange(1, 30))})
    names = result_names(images)
    assert set(names) == set(images)
    assert len(set(files_of(names))) == len(files_of(names))
    assert not [name for name in names.values() if "/" in name]


def test_every_extra_has_its_ending_here() -> None:
    assert len(ENDINGS) == 2 + len(EXTRAS)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_the_output_folder_within_the_input_folder_is_passed_over(tmp_path: Path) -> None:
    photos = [tmp_path / "a.jpg", tmp_path / "b" / "c.png"]
    touch(*photos, tmp_path / "out" / "a.overlay.png", tmp_path / "out" / ".a.overlay.k2.png")
    assert images_to_segment([str(tmp_path)], tmp_path / "out") == photos


def test_results_beside_the_photos_are_passed_over(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    touch(photo, *(tmp_path / f"a.{end}.png" for end in ("overlay", "labels", "groups")))
    assert images_to_segment([str(tmp_path)], tmp_path) == [photo]
    assert images_to_segment([f"{tmp_path}/*"], None) == [photo]


def test_an_overlay_alone_may_be_a_photo_but_for_the_output_folder(tmp_path: Path) -> None:
    photo, half = tmp_path / "a.jpg", tmp_path / "a.overlay.png"
    touch(photo, half)
    assert images_to_segment([str(tmp_path)], None) == [photo, half]
    assert images_to_segment([str(tmp_path)], tmp_path) == [photo]


def test_what_is_named_is_taken(tmp_path: Path) -> None:
    images = [tmp_path / "a.labels.png", tmp_path / "photos" / "a.jpg"]
    touch(*images, tmp_path / "a.overlay.png")
    assert images_to_segment([str(images[0]), str(tmp_path / "photos")], tmp_path) == images


def test_nothing_but_results_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "a.overlay.png", tmp_path / "a.labels.png")
    with pytest.raises(Exception, match="no images but results"):
        images_to_segment([str(tmp_path)], None)
