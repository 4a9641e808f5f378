"""`ovseg build-dataset` through its runner."""

import json
from pathlib import Path

import polars as pl
import pytest

import ovseg
from ovseg.data import inspect_dataset
from ovseg.errors import RecipeError
from ovseg_cli.__main__ import run
from tests.data.pictures import picture

OPTIONS = [
    *("--entities", "paper100", "--image-size", "32", "--workers", "1"),
    *("--set", "build.partners=2"),
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(picture(number))
        (folder / f"{number}.txt").write_text(
            "a [bold] dog on a sofa" if number % 2 else "two cats"
        )
    (folder / "bad.jpg").write_bytes(b"<html>")
    (folder / "bad.txt").write_text("a dog")
    return folder


def test_build_inspect_and_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(photos.parent / "data")
    assert run(["build-dataset", str(photos), "--output", data, *OPTIONS]) == 0
    shown = capsys.readouterr().out
    assert "6 pairs in 1 of 1 shards" in shown and "a web page, not an image" in shown
    again = ["build-dataset", "from", str(photos), "-o", data, *OPTIONS, "--json"]
    assert run(again) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["pairs"] == 6 and summary["complete"]
    assert run(["build-dataset", "inspect", data, "--samples", "6"]) == 0
    shown = capsys.readouterr().out
    assert "all checksums of 1 shards match" in shown and "a [bold] dog" in shown
    assert run(["build-dataset", "inspect", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"][0]["partners"]
    (photos.parent / "data" / "partners.npy").unlink()
    assert run(["build-dataset", "inspect", data, "--samples", "0"]) == 1
    assert "partners.npy is missing" in capsys.readouterr().err


def test_parts_and_merge(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["build-dataset", str(photos), *OPTIONS, "--set", "build.pairs_per_shard=2"]
    parts = [str(photos.parent / name) for name in "ab"]
    for index, part in enumerate(parts, 1):
        assert run([*common, "--shard-range", f"{index}/2", "--output", part]) == 0
    assert "not complete" in capsys.readouterr().out
    whole = str(photos.parent / "whole")
    assert run(["build-dataset", "merge", *parts, "--output", whole, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 6
    away = photos.parent / "away"
    assert run(["build-dataset", "publish", whole, away.as_uri()]) == 0
    assert "files sent" in capsys.readouterr().out and (away / "index.parquet").is_file()


def test_dry_run_writes_nothing(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(photos.parent.rglob("*"))
    command = ["build-dataset", str(photos), "--entities", "paper100", "--dry-run"]
    assert run([*command, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["captions_matched"] == 7 and plan["disk_bytes"] > 0
    assert run(command) == 0
    assert "disk need" in capsys.readouterr().out
    assert sorted(photos.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["cc13m", "--output", "x"], 2, "there is no source 'cc13m'"),
        (["{photos}"], 2, "--output DIR"),
        (["{photos}", "--output", "x", "--match", "both"], 2, "must be one of lexical, pos"),
        (["{photos}", "--output", "x", "--shard-range", "3/2"], 2, "no part 3 of 2"),
        (["{photos}", "--output", "x", "--shard-range", "half"], 2, "write it as 1/4"),
        (["{photos}", "--output", "x", "--set", "engine.kind=slurm"], 2, "must be one of local"),
        (["{photos}", "--set", "entities.tops=5"], 2, "did you mean entities.top?"),
        (["flickr9k.toml", "--output", "x"], 2, "did you mean flickr8k?"),
        (["inspect", "{photos}"], 1, "is no data set"),
        (["--output", "x"], 2, "SOURCE"),
    ],
)
def test_mistakes(
    photos: Path,
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photos.parent)
    assert run(["build-dataset", *(a.format(photos=photos) for a in arguments)]) == code
    assert message in capsys.readouterr().err


def test_help_lists_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build-dataset", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("inspect", "merge", "agreement", "SOURCE"))
    assert run(["build-dataset", "cc12m", "--help"]) == 0
    assert "--retry-failures" in capsys.readouterr().out


def test_a_recipe_builds_what_its_source_would(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{n}.jpg\ta dog on a sofa, the {n}th\n{n}.jpg\ttwo cats\n" for n in range(6)]
    (photos / "captions.tsv").write_text("".join(rows))
    recipe = Path(__file__).parents[2] / "recipes/flickr8k.toml"
    here = ["--source", str(photos / "captions.tsv"), "--images", str(photos)]
    command = ["build-dataset", str(recipe), *here, *OPTIONS, "--json"]
    assert run([*command, "--output", str(photos.parent / "data")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["pairs"] == 12 and summary["complete"]
    table = [str(photos / "captions.tsv"), "--images", str(photos), *OPTIONS]
    columns = ["--set", "source.url_column=0", "--set", 'source.caption_columns=["1"]']
    other = str(photos.parent / "other")
    assert run(["build-dataset", *table, *columns, "--output", other]) == 0
    made = {path.name: path.read_bytes() for path in (photos.parent / "data").iterdir()}
    assert made == {path.name: path.read_bytes() for path in Path(other).iterdir()}


def test_the_verb_does_what_the_command_does(photos: Path) -> None:
    changes = ["entities.source=paper100", "image.short_side=32", "engine.workers=1"]
    summary = ovseg.build_dataset(photos, photos.parent / "data", changes)
    assert isinstance(summary, ovseg.DatasetSummary) and summary.pairs == 6
    assert inspect_dataset(photos.parent / "data").faults == []
    with pytest.raises(RecipeError, match="unknown key"):
        ovseg.build_dataset(photos, photos.parent / "data", ["seed=3"])


@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl", "parquet"])
def test_a_wrong_column_leaves_nothing_behind(
    photos: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = photos.parent / f"rows.{format}"
    frame = pl.DataFrame({"link": [f"{n}.jpg" for n in range(6)], "text": ["two cats"] * 6})
    if format == "jsonl":
        frame.write_ndjson(table)
    elif format == "parquet":
        frame.write_parquet(table)
    else:
        frame.write_csv(table, separator="\t" if format == "tsv" else ",")
    data = photos.parent / "data"
    command = ["build-dataset", str(table), "--images", str(photos), "-o", str(data), *OPTIONS]
    assert run([*command, "--set", "source.url_column=links"]) == 2
    assert "has no column 'links'" in capsys.readouterr().err and not data.exists()
    columns = ["--set", "source.url_column=link", "--set", "source.caption_columns=[text]"]
    columns[-1] = 'source.caption_columns=["text"]'
    assert run([*command, *columns]) == 0


def test_a_build_of_no_pairs_fails_and_says_why(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = photos.parent / "rows.tsv"
    table.write_text("no.jpg\ta dog\nbad.jpg\ttwo cats\n")
    data = photos.parent / "data"
    columns = ["--set", "source.url_column=0", "--set", "source.caption_columns=[1]"]
    command = ["build-dataset", str(table), "--images", str(photos), "-o", str(data), *OPTIONS]
    for _ in range(2):
        assert run([*command, *columns]) == 1
        told = capsys.readouterr().err
        assert "1 a web page, not an image, 1 no such file" in told and "--retry-failures" in told
    (photos / "bad.jpg").write_bytes(picture(9))
    assert run([*command, *columns, "--retry-failures"]) == 0


def test_a_build_without_a_match_keeps_nothing_that_refuses_the_next(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = photos.parent / "rows.tsv"
    table.write_text("0.jpg\ta quark\ttwo cats\n1.jpg\t\ta dog\n")
    command = ["build-dataset", str(table), "--images", str(photos), *OPTIONS]
    command += ["-o", str(photos.parent / "data"), "--set", "source.url_column=0"]
    assert run([*command, "--set", "source.caption_columns=[1]"]) == 1
    told = capsys.readouterr().err
    assert "none of 1 captions" in told and "1 no caption" in told
    assert run([*command, "--set", "source.caption_columns=[2]"]) == 0


def test_a_recipe_that_got_nowhere_refuses_nothing(photos: Path) -> None:
    """As versions before left it behind a wrong column."""
    data = photos.parent / "data"
    data.mkdir()
    (data / "recipe.json").write_text(json.dumps({"source": "table"}))
    assert run(["build-dataset", str(photos), "-o", str(data), *OPTIONS]) == 0
