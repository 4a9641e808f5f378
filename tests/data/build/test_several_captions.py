"""Several captions of one image: stored once, a row of the index for each, read by all readers."""

import json
import tarfile
from pathlib import Path

import polars as pl
import pytest

from ovseg.data.build.copying import merge_datasets
from ovseg.data.build.engine import Engine
from ovseg.data.build.inspection import inspect_dataset
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.request import load_request, plan_dataset
from ovseg.data.build.sources import CaptionSource, Columns, resolve_source
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.dataset.index import open_index
from ovseg.data.dataset.plan import Tally
from ovseg.data.dataset.shards import PlanRow, PreparedImage, read_images, write_shard
from ovseg.data.dataset.webdataset import read_shard
from ovseg.data.store import open_store
from ovseg.files import sha256
from tests.data.pictures import picture

CAPTIONS = [
    "a dog on a sofa",
    "two cats and a dog",
    "nothing to see",
    "a red bus",
    "the café's cat",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CaptionSource:
    """12 photos with five captions each, of which four name an entity; one is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        data = picture(number) if number != 5 else b"<html>"
        (folder / f"{number:02}.jpg").write_bytes(data)
    rows = [f"{number:02}.jpg\t{text}\n" for number in range(12) for text in CAPTIONS]
    (folder / "captions.tsv").write_text("".join(rows), encoding="utf-8")
    return _source(folder / "captions.tsv")


def _source(table: Path) -> CaptionSource:
    return resolve_source(str(table), "", Columns("", "0", ("1",)), table.parent)


def _options(part: tuple[int, int] = (1, 1), workers: int = 1) -> BuildOptions:
    return BuildOptions(
        EntityOptions("paper100"),
        ImageOptions(short_side=32),
        engine=Engine(workers=workers),
        rows_per_shard=16,
        partners=2,
        part=part,
    )


@pytest.fixture(scope="module")
def built(source: CaptionSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "data"
    summary = build_from_source(source, folder, _options())
    assert (summary.captions_matched, summary.pairs, summary.shards) == (48, 44, 3)
    assert summary.failures == {"a web page, not an image": 4}
    return folder


def _bytes_of(folder: Path) -> dict[str, str]:
    return {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.name != ".lock"}


def test_an_image_is_stored_once_with_all_its_captions(built: Path) -> None:
    index = pl.read_parquet(built / "index.parquet")
    assert len(index) == 44 and index["key"].n_unique() == 44
    assert index.select("shard", "offset").n_unique() == index["locator"].n_unique() == 11
    wanted = [text for text in CAPTIONS if text != "nothing to see"]
    with tarfile.open(built / "000000.tar") as tar:
        names = tar.getnames()
        assert [name for name in names if name.endswith(".jpg")] == [
            f"000000000{place:02}.jpg" for place in (0, 4, 8, 12)
        ]
        assert tar.extractfile("00000000004.txt").read().decode() == wanted[0]
        described = json.load(tar.extractfile("00000000004.json"))
    assert described["caption"] == wanted[0]
    assert [entry["caption"] for entry in described["captions"]] == wanted
    assert [entry["key"] for entry in described["captions"]] == index["key"].to_list()[4:8]
    second = described["captions"][1]
    spans = [(e["name"], second["caption"][e["start"] : e["end"]]) for e in second["entities"]]
    assert spans == [("cat", "cats"), ("dog", "dog")]
    assert "captions" not in json.loads(_single(built.parent / "single"))


def _single(folder: Path) -> bytes:
    """The JSON of an image with one caption, which is what it always was."""
    row = PlanRow("a.jpg", "a dog", None, None, [0], [2], [5])
    write_shard(folder, 0, [row], [PreparedImage(b"jpeg", 9, 9)], ["dog"])
    with tarfile.open(folder / "000000.tar") as tar:
        return tar.extractfile("00000000000.json").read()


def test_the_same_bytes_again_in_parts_and_after_a_loss(
    source: CaptionSource, built: Path, tmp_path: Path
) -> None:
    before = _bytes_of(built)
    build_from_source(source, tmp_path / "two", _options(workers=2))
    assert _bytes_of(tmp_path / "two") == before
    for part in (1, 2):
        build_from_source(source, tmp_path / f"part{part}", _options((part, 2)))
    merge_datasets([tmp_path / "part1", tmp_path / "part2"], tmp_path / "whole")
    assert _bytes_of(tmp_path / "whole") == before
    (tmp_path / "two" / "000001_stats.json").unlink()
    (tmp_path / "two" / "dataset.json").unlink()
    build_from_source(source, tmp_path / "two", _options())
    assert _bytes_of(tmp_path / "two") == before
    found = inspect_dataset(built, samples=44)
    assert found.faults == [] and len(found.samples) == 44


def test_the_index_and_the_stream_tell_the_same(built: Path) -> None:
    index = open_index((str(built),))
    streamed = {
        raw.pair.key: raw
        for number in range(3)
        for raw in read_shard(str(built / f"{number:06}.tar"))
    }
    assert len(streamed) == len(index)
    for row in range(len(index)):
        pair = index.pair(row)
        raw = streamed[pair.key]
        assert (raw.pair.caption, raw.image) == (pair.caption, index.image(row))
        assert sorted(raw.pair.mentions, key=lambda m: m.start) == list(pair.mentions)


def test_it_is_a_source_with_all_its_captions(built: Path, tmp_path: Path) -> None:
    again = resolve_source(str(built), "", Columns(), None)
    options = BuildOptions(EntityOptions("paper100"), ImageOptions(short_side=0))
    summary = build_from_source(again, tmp_path / "again", options)
    assert (summary.pairs, summary.failures) == (44, {})
    index = pl.read_parquet(tmp_path / "again" / "index.parquet")
    # The third image's captions lie in two shards of the source, which has it twice.
    stored = pl.read_parquet(built / "index.parquet").select("shard", "offset").n_unique()
    assert index["offset"].n_unique() == stored


def test_a_shard_of_the_old_form_is_read_and_completed(tmp_path: Path) -> None:
    """Where each pair had a copy of the image, under other offsets."""
    rows = [PlanRow(f"{n}.jpg", f"dog {n}", None, None, [0], [0], [3]) for n in range(3)]
    images = [PreparedImage(b"same", 9, 9)] * 2 + ["HTTP 404"]
    write_shard(tmp_path, 0, rows, images, ["dog"])
    table = pl.read_parquet(tmp_path / "000000.parquet")
    assert table["offset"].n_unique() == 3
    found = read_images(open_store(tmp_path), 0)
    assert [found[place].data for place in sorted(found)] == [b"same"] * 2
    assert [raw.pair.caption for raw in read_shard(str(tmp_path / "000000.tar"))] == [
        "dog 0",
        "dog 1",
    ]


def test_captions_that_do_not_stand_together_share_an_image_in_a_shard(
    source: CaptionSource, tmp_path: Path
) -> None:
    lines = Path(source.address).read_text(encoding="utf-8").splitlines(keepends=True)
    folder = source.images
    assert folder is not None
    table = tmp_path / "mixed.tsv"
    table.write_text("".join(lines[::2] + lines[1::2]), encoding="utf-8")
    mixed = resolve_source(str(table), "", Columns("", "0", ("1",)), folder)
    options = BuildOptions(EntityOptions("paper100"), ImageOptions(short_side=32))
    build_from_source(mixed, tmp_path / "data", options)
    index = pl.read_parquet(tmp_path / "data" / "index.parquet")
    assert (len(index), index["offset"].n_unique()) == (44, 11)


def test_captions_of_coco_stand_together(tmp_path: Path) -> None:
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in (7, 3)],
        "annotations": [{"image_id": n, "caption": f"a dog {n}"} for n in (3, 7, 9, 3, 7)],
    }
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    tally = Tally()
    chunks = list(resolve_source(str(path), "", Columns(), tmp_path).chunks(tally))
    assert chunks[0]["locator"].to_list() == ["7.jpg", "7.jpg", "3.jpg", "3.jpg"]
    assert tally.dropped == {"no image": 1}


def test_the_disk_need_counts_an_image_once(source: CaptionSource) -> None:
    changes = [
        "source.url_column=0",
        "source.caption_columns=[1]",
        f'source.images="{source.images}"',
        "entities.source=paper100",
        "image.short_side=0",
    ]
    plan = plan_dataset(load_request(source.address, changes))
    assert plan.disk_bytes == 12 * 200_000 + 48 * 3000
