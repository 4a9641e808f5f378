"""Reading images: colour modes, orientation, damage, hostile sizes; finding files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ovseg.data import images
from ovseg.data.images import (
    UndecodableError,
    decode,
    find_images,
    read_image,
    resize,
    resized_shape,
)
from ovseg.errors import DataError, UsageError
from tests.data.pictures import picture


def gradient(height: int = 40, width: int = 60) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 6, columns * 4, (rows + columns) * 2], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels)


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(gradient()))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned; shown after a quarter turn clockwise
    image.save(tmp_path / "a.png", exif=exif)
    upright = np.rot90(np.asarray(image), k=-1)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)


def test_greyscale_is_repeated(tmp_path: Path) -> None:
    gradient().convert("L").save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels.shape == (40, 60, 3)
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 60, dtype=np.uint16)[None].repeat(40, axis=0)
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")[0, :, 0].astype(int)
    assert np.abs(pixels - np.linspace(0, 255, 60)).max() <= 1


def test_float_tiff_in_zero_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "a.tiff")
    assert (read_image(tmp_path / "a.tiff") == 128).all()


def test_transparency_becomes_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[3, 3].tolist() == [255, 255, 255]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "a.jpg")[4, 4].astype(int)
    assert red > 200
    assert max(green, blue) < 80


def test_palette_is_converted(tmp_path: Path) -> None:
    gradient().convert("P").save(tmp_path / "a.gif")
    assert read_image(tmp_path / "a.gif").shape == (40, 60, 3)


def damaged(tmp_path: Path, content: bytes, name: str = "a.jpg") -> str:
    """The message for a file with this content."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_truncated_jpeg(tmp_path: Path) -> None:
    gradient(400, 400).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    assert "damaged" in damaged(tmp_path, content[: len(content) // 2])


def test_empty_file(tmp_path: Path) -> None:
    assert "empty" in damaged(tmp_path, b"")


def test_web_page_called_jpeg(tmp_path: Path) -> None:
    assert "not an image" in damaged(tmp_path, b"<html>404</html>")


def test_postscript_is_not_run(tmp_path: Path) -> None:
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) print\n%%EOF\n"
    assert "not an image" in damaged(tmp_path, page, "a.eps")


def test_two_hundred_megapixels_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(path)
    with pytest.raises(DataError, match="megapixels"):
        read_image(path)


def test_just_over_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (10_001, 10_000)).save(path)
    with pytest.raises(DataError, match="10001×10000"):
        read_image(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "nothing.png")


def test_find_in_folder_glob_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    names = [path.name for path in find_images([str(tmp_path)])]
    assert names == ["a.JPG", "b.png", "c.webp"]
    both = find_images([str(tmp_path / "*.png"), str(tmp_path / "b.png")])
    assert [path.name for path in both] == ["b.png"]


def test_missing_names_are_left_to_the_reader(tmp_path: Path) -> None:
    assert find_images([str(tmp_path / "x.png")]) == [tmp_path / "x.png"]


def test_name_with_brackets_is_no_glob_if_it_exists(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").touch()
    assert find_images([str(tmp_path / "a[1].png")]) == [tmp_path / "a[1].png"]


@pytest.mark.parametrize("url", ["https://host/a.jpg", "file:///etc/passwd", "S3://b/a.png"])
def test_urls_are_refused_with_a_hint(url: str) -> None:
    with pytest.raises(UsageError, match="curl"):
        find_images([url])


def test_folder_and_glob_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        find_images([str(tmp_path)])
    with pytest.raises(DataError, match="no image matches"):
        find_images([str(tmp_path / "*.png")])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (448, 597)), ((100, 1000), (205, 2048)), ((448, 448), (448, 448))],
)
def test_shape_keeps_the_aspect(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_shape(*size, 448, 2048) == expected


def test_shape_in_multiples() -> None:
    assert resized_shape(375, 500, 448, 2048, 32) == (448, 608)
    assert resized_shape(10, 4000, 448, 2048, 32) == (32, 2048)


def test_resize_is_bilinear_with_half_pixel_centres() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 200
    assert resize(image, (1, 4))[0, :, 0].tolist() == [0, 50, 150, 200]


def test_bytes_are_decoded_or_refused() -> None:
    assert decode(picture(1)).shape == (48, 64, 3)
    assert decode(picture(1, format="PNG")).shape == (48, 64, 3)
    for damaged in (b"", b"<html>", picture(1, (400, 300))[:3000]):
        with pytest.raises(UndecodableError):
            decode(damaged)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, orientation: int
) -> None:
    """A large image is converted a few rows at a time, and looks as it did at once."""
    monkeypatch.setattr(images, "_BAND", 7 * 60)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = gradient().convert(mode)
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        wanted = np.asarray(images.flatten(ImageOps.exif_transpose(stored)))
    assert np.array_equal(read_image(tmp_path / "a.png"), wanted)


def test_a_given_image_is_not_turned_itself() -> None:
    image = gradient()
    image.getexif()[0x0112] = 6
    assert images.to_rgb(image).shape == (60, 40, 3)
    assert image.size == (60, 40)


@pytest.mark.parametrize("mode", ["1", "P", "LA"])
def test_a_small_file_with_many_pixels_takes_bounded_memory(tmp_path: Path, mode: str) -> None:
    """9,999 squared pixels in kilobytes; its RGB alone has 300 MB."""
    Image.new(mode, (9_999, 9_999)).save(tmp_path / "a.png", compress_level=1)
    if mode != "LA":
        with pytest.raises(DataError, match=r"9999×9999 pixels in [\d,]+ bytes are no photograph"):
            read_image(tmp_path / "a.png")
    with (tmp_path / "a.png").open("ab") as stream:
        stream.write(bytes(1 << 20))  # what comes after a PNG's end is not looked at
    code = (
        "import resource, sys; from ovseg.data.images import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_image(sys.argv[1]).nbytes == 3 * 9_999**2\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 900e6


@pytest.mark.parametrize(
    ("mode", "suffix"), [("F", "tiff"), ("I", "tiff"), ("RGB", "webp"), ("RGB", "jp2")]
)
def test_what_takes_much_memory_to_decode_has_fewer_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (60, 40)).save(path)
    monkeypatch.setattr(images, "COSTLY_PIXELS", 60 * 40)
    assert read_image(path).shape == (40, 60, 3)
    monkeypatch.setattr(images, "COSTLY_PIXELS", 60 * 40 - 1)
    with pytest.raises(DataError, match="60×40 pixels; images over 0 megapixels are refused"):
        read_image(path)
