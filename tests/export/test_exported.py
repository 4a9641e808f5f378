"""An exported folder as a model: the same answers, without torch, and clear refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.errors import ModelError, UsageError
from ovseg.export.export import ExportResult
from ovseg.inference.segmenter import Segmenter
from ovseg.models.exported import ExportedModel
from ovseg.models.registry import load_model
from ovseg.models.starter.model import StarterModel
from tests.conftest import ROOT
from tests.export.models import tiny_predictor
from tests.export.without import TORCH, run_without


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "export.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copied"))


@pytest.mark.parametrize("shape", [(64, 96), (64, 64), (160, 96), (32, 32)])
@pytest.mark.parametrize("threshold", [0.4, None])
def test_groups_and_scores_are_the_models(
    tiny_folder: Path, shape: tuple[int, int], threshold: float | None
) -> None:
    model, exported = tiny_predictor(), load_model(tiny_folder)
    values = np.random.default_rng(0).normal(size=(3, 3, *shape)).astype(np.float32)
    ours = model.encode_image(model.from_numpy(values))
    theirs = exported.encode_image(exported.from_numpy(values))
    assert theirs.grid == ours.grid
    np.testing.assert_allclose(theirs.embedding, ours.embedding, atol=2e-5)
    np.testing.assert_allclose(theirs.assignment, ours.assignment, atol=2e-6)
    np.testing.assert_allclose(theirs.image_embedding, ours.image_embedding, atol=2e-5)
    names = ["cat", "dog", "bird", "sofa", "train", "bus", "car"]
    classes = exported.encode_text(names, model.templates)
    np.testing.assert_allclose(classes, model.encode_text(names, model.templates), atol=1e-6)
    wanted = model.score(ours, torch.from_numpy(classes), threshold)
    np.testing.assert_allclose(exported.score(theirs, classes, threshold), wanted, atol=1e-5)


def test_prompts_of_many_lengths_and_templates(tiny_folder: Path) -> None:
    model, exported = tiny_predictor(), load_model(tiny_folder)
    names = ["cat", "photo of a cat of a dog", " ".join(["bus"] * 90)]
    templates = ("{}", "a photo of a {}.")
    np.testing.assert_allclose(
        exported.encode_text(names, templates), model.encode_text(names, templates), atol=1e-6
    )


@pytest.mark.parametrize("background", [True, False])
def test_starter_gives_the_same_label_map(
    starter_folder: Path, chelsea: Path, background: bool
) -> None:
    wanted = Segmenter(StarterModel()).segment(chelsea, "cat,dog;wolf,table", background=background)
    segmenter = Segmenter.from_pretrained(starter_folder)
    found = segmenter.segment(chelsea, "cat,dog;wolf,table", background=background)
    assert (found.labels == wanted.labels).mean() > 0.9999
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


def test_windows_and_batches_run_too(tiny_folder: Path, chelsea: Path, tmp_path: Path) -> None:
    shutil.copy(chelsea, tmp_path / "again.png")
    segmenter = Segmenter.from_pretrained(tiny_folder)
    wanted = Segmenter(tiny_predictor()).segment(chelsea, "cat,dog,bird")
    results = list(segmenter.segment_files([chelsea, tmp_path / "again.png"], "cat,dog,bird"))
    for result in results:
        assert isinstance(result, tuple)
        assert (result[1].labels == wanted.labels).mean() > 0.99


def test_unknown_words_of_a_closed_vocabulary(starter_folder: Path) -> None:
    exported = load_model(starter_folder)
    assert [one.phrase for one in exported.unknown(["cat", "xyzzy"])] == ["xyzzy"]
    assert "tabby" in (exported.known_words() or [])


def test_open_vocabularies_know_everything(tiny_folder: Path) -> None:
    exported = load_model(tiny_folder)
    assert exported.unknown(["xyzzy"]) == []
    assert exported.known_words() is None


def test_segments_where_torch_is_not_installed(
    starter_folder: Path, tiny_folder: Path, chelsea: Path, tmp_path: Path
) -> None:
    for folder in (starter_folder, tiny_folder):
        arguments = ["segment", str(chelsea), "--model", str(folder), "--classes", "cat,dog"]
        arguments += ["--output", str(tmp_path / folder.parent.name), "--save", "json,logits"]
        done = run_without(TORCH, arguments)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / folder.parent.name / "chelsea.labels.png").is_file()


def test_a_missing_runtime_names_the_command(tiny_folder: Path, chelsea: Path) -> None:
    arguments = ["segment", str(chelsea), "--model", str(tiny_folder), "--classes", "cat"]
    done = run_without((*TORCH, "onnxruntime"), arguments)
    assert done.returncode == 1
    assert 'pip install "ovseg[onnx]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_width_of_class_embeddings(tiny_folder: Path) -> None:
    exported = load_model(tiny_folder)
    grouped = exported.encode_image(np.zeros((1, 3, 32, 32), np.float32))
    with pytest.raises(ModelError, match="7 wide, but this model compares 32"):
        exported.score(grouped, np.zeros((2, 7), np.float32), 0.5)


def test_sides_that_do_not_fit(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match="33x32 pixels: both sides must be multiples of 16"):
        load_model(tiny_folder).encode_image(np.zeros((1, 3, 33, 32), np.float32))


def test_a_device_that_is_not_there(tiny_folder: Path) -> None:
    with pytest.raises(UsageError, match="runs on auto, cpu or cuda"):
        load_model(tiny_folder, "mps").encode_image(np.zeros((1, 3, 32, 32), np.float32))


@pytest.mark.parametrize(
    "name",
    ["../image.onnx", "/etc/passwd", "a/../../b.onnx", ".hidden", "a/b/c.onnx", "", "9" * 5000],
)
def test_files_outside_the_folder_are_refused(copied: Path, name: str) -> None:
    rewrite(copied, image_graph=name)
    with pytest.raises(ModelError, match="refused"):
        load_model(copied)


def test_a_newer_format_is_named(copied: Path) -> None:
    rewrite(copied, format_version=99)
    with pytest.raises(ModelError, match="format 99 by a newer ovseg"):
        load_model(copied)


@pytest.mark.parametrize(
    "changes",
    [{"pixels": {}}, {"scale": "many"}, {"unheard_of": 1}, {"embedding_width": 0}, {"kind": "x"}],
)
def test_damaged_descriptions_name_the_key(copied: Path, changes: dict[str, object]) -> None:
    rewrite(copied, **changes)
    with pytest.raises(ModelError, match=next(iter(changes))):
        load_model(copied)


def test_a_truncated_description(copied: Path) -> None:
    (copied / "export.json").write_text('{"format_version": 1, ')
    with pytest.raises(ModelError, match="missing or damaged"):
        load_model(copied)


def test_a_missing_file(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        load_model(copied)


def test_a_damaged_graph(copied: Path) -> None:
    (copied / "image.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"no ONNX file, or damaged|ONNX Runtime cannot read it"):
        load_model(copied).encode_image(np.zeros((1, 3, 32, 32), np.float32))


def test_cached_embeddings_belong_to_one_export(tiny_export: ExportResult) -> None:
    exported = load_model(tiny_export.folder)
    assert isinstance(exported, ExportedModel)
    assert exported.card.content_hash != tiny_predictor().card.content_hash


def test_a_hash_that_a_folder_claims_is_not_believed(copied: Path) -> None:
    """Else its embeddings would be taken for those of the model that it names."""
    before = load_model(copied).card.content_hash
    assert load_model(copied).card.content_hash == before
    words = (copied / "tokenizer.json").read_text()
    (copied / "tokenizer.json").write_text(words + " ")
    assert load_model(copied).card.content_hash != before


PIXELS = json.loads((ROOT / "tests/compatibility/made/onnx/export.json").read_text())["pixels"]


@pytest.mark.parametrize(
    "changes",
    [
        {"short_side": 65_536},
        {"window": 32, "stride": 1},
        {"window": 448, "stride": 0},
        {"cell": 7},
        {"mean": [1e308, 0, 0]},
        {"std": [1e-300, 1, 1]},
        {"multiple_of": 10**30},
    ],
)
def test_pixels_that_no_model_wants(copied: Path, changes: dict[str, object]) -> None:
    rewrite(copied, pixels=PIXELS | changes)
    with pytest.raises(ModelError, match=r"export\.json: pixels"):
        load_model(copied)


@pytest.mark.parametrize("template", ["{:>1000000000}", "{0.__class__}", "a {} and {}", "a photo"])
def test_templates_that_are_programs(copied: Path, template: str) -> None:
    rewrite(copied, templates=[template])
    with pytest.raises(ModelError, match="templates"):
        load_model(copied)


def test_a_graph_of_another_width(copied: Path) -> None:
    rewrite(copied, embedding_width=33)
    model = load_model(copied)
    with pytest.raises(ModelError, match=r"embedding of the shape|invalid dimensions"):
        model.encode_image(np.zeros((1, 3, 32, 32), np.float32))
    with pytest.raises(ModelError, match="its text graph gives"):
        model.encode_text(["cat"], ["a photo of a {}."])


def test_a_tokenizer_that_dies_is_one_sentence(copied: Path) -> None:
    values = json.loads((copied / "tokenizer.json").read_text())
    rule = {"type": "Split", "pattern": {"Regex": "(a+)+$|(a|aa)+$"}, "behavior": "Isolated"}
    values["pre_tokenizer"] = rule | {"invert": False}
    (copied / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"tokenizer\.json: "):
        load_model(copied).encode_text(["a" * 60 + "!"], ["{}"])
    (copied / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer\.json: its tokenizer cannot be used"):
        load_model(copied).encode_text(["cat"], ["{}"])
