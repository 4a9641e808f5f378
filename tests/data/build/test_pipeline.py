"""Whole builds from folders: what comes out, interruption, parts, and damage found later."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ovseg.data.build.copying import merge_datasets
from ovseg.data.build.engine import Engine
from ovseg.data.build.inspection import inspect_dataset
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.sources import CaptionSource, Columns, resolve_source
from ovseg.data.dataset.folder import DatasetSummary, ImageOptions
from ovseg.data.dataset.index import open_index
from ovseg.errors import UsageError
from ovseg.files import sha256
from tests.data.pictures import picture

CAPTIONS = ["a dog on a sofa", "two cats", "nothing to see", "the café's red bus"]
COMMAND = "import sys; from ovseg_cli.__main__ import run; sys.exit(run(sys.argv[1:]))"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures with captions, three of four naming an entity, and files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        (folder / f"{number:03}.jpg").write_bytes(picture(number))
        (folder / f"{number:03}.txt").write_text(CAPTIONS[number % 4], encoding="utf-8")
    bad = {
        "a": b"<!DOCTYPE html><html>",
        "b": picture(1, (400, 300))[:3000],
        "c": b"",
        "d": picture(2, (8, 8)),
        "e": picture(3, (300, 20)),
    }
    for name, data in bad.items():
        (folder / f"bad-{name}.jpg").write_bytes(data)
        (folder / f"bad-{name}.txt").write_text("a dog")
    (folder / "no-caption.jpg").write_bytes(picture(4))
    return folder


def _options(part: tuple[int, int] = (1, 1), workers: int = 1) -> BuildOptions:
    return BuildOptions(
        EntityOptions("paper100"),
        ImageOptions(short_side=32),
        engine=Engine(workers=workers),
        rows_per_shard=7,
        partners=3,
        part=part,
    )


def _source(photos: Path) -> CaptionSource:
    return resolve_source(str(photos), "", Columns(), None)


def _bytes_of(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.iterdir()) if path.name != ".lock")
    return {path.name: sha256(path) for path in files}


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetSummary]:
    folder = tmp_path_factory.mktemp("built") / "data"
    return folder, build_from_source(_source(photos), folder, _options())


def test_every_row_is_accounted_for(built: tuple[Path, DatasetSummary]) -> None:
    _, summary = built
    assert summary.complete and summary.shards == 5
    assert (summary.captions_read, summary.captions_dropped) == (46, {"no caption": 1})
    assert (summary.captions_matched, summary.pairs) == (35, 30)
    assert summary.failures == {
        "a web page, not an image": 1,
        "truncated image": 1,
        "empty file": 1,
        "too small": 1,
        "too elongated": 1,
    }
    assert summary.entity_captions["dog"] == 15


def test_the_index_points_at_the_images(built: tuple[Path, DatasetSummary], photos: Path) -> None:
    folder, _ = built
    index = pl.read_parquet(folder / "index.parquet")
    for row in index.iter_rows(named=True):
        name = f"{row['shard']:06d}.tar"
        data = (folder / name).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        with tarfile.open(folder / name) as tar:
            assert tar.extractfile(f"{row['key']}.jpg").read() == data
            assert tar.extractfile(f"{row['key']}.txt").read().decode() == row["caption"]
            described = json.load(tar.extractfile(f"{row['key']}.json"))
        spans = [row["caption"][a:b] for a, b in zip(row["starts"], row["ends"], strict=True)]
        assert spans == [row["caption"][e["start"] : e["end"]] for e in described["entities"]]
        assert set(spans) <= {"dog", "sofa", "cats", "bus"} and spans
        assert (row["width"], row["height"]) == (43, 32)
    failures = pl.read_parquet(folder / "failures.parquet")
    assert failures["locator"].to_list() == [f"bad-{name}.jpg" for name in "abcde"]


def test_webdataset_reads_the_shards(built: tuple[Path, DatasetSummary]) -> None:
    wds = pytest.importorskip("webdataset")
    folder, _ = built
    samples = list(wds.WebDataset(str(folder / "000000.tar"), shardshuffle=False))
    assert [sample["txt"] for sample in samples[:2]] == [b"a dog on a sofa", b"two cats"]


def test_partners_belong_to_the_index(built: tuple[Path, DatasetSummary]) -> None:
    folder, _ = built
    index = pl.read_parquet(folder / "index.parquet")
    partners, shared = (np.load(folder / f"{n}.npy") for n in ("partners", "partner_entities"))
    assert partners.shape == shared.shape == (len(index), 3)
    named = [set(row) for row in index["entities"]]
    for row in range(len(index)):
        for other, entity in zip(partners[row], shared[row], strict=True):
            assert other != row and entity in named[row] & named[other]


def test_again_is_nothing_to_do_and_two_processes_give_the_same_bytes(
    built: tuple[Path, DatasetSummary], photos: Path, tmp_path: Path
) -> None:
    folder, summary = built
    before = _bytes_of(folder)
    assert build_from_source(_source(photos), folder, _options()) == summary
    assert _bytes_of(folder) == before
    build_from_source(_source(photos), tmp_path / "two", _options(workers=2))
    assert _bytes_of(tmp_path / "two") == before


def test_other_settings_are_refused(built: tuple[Path, DatasetSummary], photos: Path) -> None:
    with pytest.raises(UsageError, match="rows_per_shard"):
        build_from_source(_source(photos), built[0], BuildOptions(EntityOptions("paper100")))


def test_captions_that_name_nothing_can_be_kept(photos: Path, tmp_path: Path) -> None:
    options = _options()
    everything = replace(options, entities=replace(options.entities, all_captions=True))
    summary = build_from_source(_source(photos), tmp_path / "data", everything)
    assert summary.captions_matched == summary.captions_read - sum(
        summary.captions_dropped.values()
    )
    index = open_index((str(tmp_path / "data"),))
    pairs = [index.pair(row) for row in range(len(index))]
    assert len(pairs) == 40
    bare = [pair for pair in pairs if not pair.mentions]
    assert len(bare) == 10 and {pair.caption for pair in bare} == {"nothing to see"}
    assert sum(len(pair.mentions) for pair in pairs) == 10 * (2 + 1 + 1)
    index.load_partners()
    assert index.partner(pairs.index(bare[0]), 0) is None
    with pytest.raises(UsageError, match="all_captions was True"):
        build_from_source(_source(photos), tmp_path / "data", options)


def test_older_data_sets_go_on(
    built: tuple[Path, DatasetSummary], photos: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(built[0], tmp_path / "data"))
    recipe = json.loads((folder / "recipe.json").read_text())
    del recipe["all_captions"]
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
    assert build_from_source(_source(photos), folder, _options()).complete


def test_the_source_is_not_built_into(photos: Path) -> None:
    with pytest.raises(UsageError, match="inside the source"):
        build_from_source(_source(photos), photos / "data", _options())


def test_parts_joined_are_the_whole(
    built: tuple[Path, DatasetSummary], photos: Path, tmp_path: Path
) -> None:
    for index in (1, 2, 3):
        part = build_from_source(_source(photos), tmp_path / str(index), _options((index, 3)))
        assert not part.complete
    joined = merge_datasets([tmp_path / n for n in "123"], tmp_path / "all")
    assert joined.complete and _bytes_of(tmp_path / "all") == _bytes_of(built[0])
    (tmp_path / "2" / "entities.toml").write_text("[[entity]]\nname = 'x'\n")
    with pytest.raises(UsageError, match=r"another entities\.toml"):
        merge_datasets([tmp_path / "1", tmp_path / "2"], tmp_path / "more")


def test_a_data_set_is_a_source(built: tuple[Path, DatasetSummary], tmp_path: Path) -> None:
    again = resolve_source(str(built[0]), "", Columns(), None)
    options = BuildOptions(EntityOptions("paper100"), ImageOptions(short_side=0))
    summary = build_from_source(again, tmp_path / "again", options)
    assert (summary.pairs, summary.failures) == (30, {})
    sizes = [pl.read_parquet(f / "index.parquet")["size"] for f in (built[0], tmp_path / "again")]
    assert sizes[0].to_list() == sizes[1].to_list()


def test_inspection_finds_a_flipped_bit(
    built: tuple[Path, DatasetSummary], photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    build_from_source(_source(photos), folder, _options())
    whole = inspect_dataset(folder, samples=4)
    assert whole.faults == [] and whole.shards_checked == 5
    sample = whole.samples[0]
    assert sample.entities and sample.partners[0].entity in {e.name for e in sample.entities}
    tar = folder / "000002.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    (folder / "partners.npy").unlink()
    found = inspect_dataset(folder, samples=0)
    assert [fault.split()[0] for fault in found.faults] == ["000002.tar", "partners.npy"]


def _command(photos: Path, folder: Path) -> list[str]:
    options = (
        "--entities paper100 --image-size 32 --workers 1 "
        "--set build.pairs_per_shard=7 --set build.partners=3"
    )
    return [
        *(sys.executable, "-c", COMMAND, "build-dataset", str(photos)),
        *("--output", str(folder), *options.split()),
    ]


@pytest.mark.slow
def test_killed_at_random_points_it_ends_with_the_same_bytes(
    built: tuple[Path, DatasetSummary], photos: Path, tmp_path: Path
) -> None:
    chance = random.Random(0)
    folder = tmp_path / "killed"
    stages = []
    while len(stages) < 8:
        process = subprocess.Popen(_command(photos, folder), stdout=subprocess.DEVNULL)
        _wait_for_new_files(folder, chance.randrange(1, 7), process)
        time.sleep(chance.random() * 0.003)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        stages.append(len(os.listdir(folder)))
    assert len(stages) >= 3, "the build was never caught at work"
    assert stages[-1] > stages[0], "no work survived an interruption"
    subprocess.run(_command(photos, folder), check=True, stdout=subprocess.DEVNULL)
    assert _bytes_of(folder) == _bytes_of(built[0])


def _wait_for_new_files(folder: Path, count: int, process: subprocess.Popen) -> None:
    """Until the build has added `count` entries, temporary ones included, or has ended."""
    before = set(os.listdir(folder)) if folder.is_dir() else set()
    while process.poll() is None:
        if folder.is_dir() and len(set(os.listdir(folder)) - before) >= count:
            return
        time.sleep(0.0005)
