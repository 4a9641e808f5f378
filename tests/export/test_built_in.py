"""The built-in model without torch: the same weights, the same labels, nothing to export first."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ovseg.errors import MissingDependencyError, UsageError
from ovseg.export.shared_weights import read_stored, share_weights
from ovseg.files import sha256
from ovseg.inference.segmenter import Segmenter
from ovseg.models import registry
from ovseg.models.exported import BuiltInModel
from ovseg.models.manifest import read_manifest
from ovseg.models.registry import load_model
from ovseg.models.starter.model import StarterModel
from tests.conftest import ROOT
from tests.export.without import TORCH, run_without

FOLDER = ROOT / "ovseg" / "models" / "starter"
REMAKE = "run: python tools/make_starter_graph.py"


def test_the_graph_was_made_of_the_files_beside_it() -> None:
    for name, file in read_manifest(FOLDER).files.items():
        assert sha256(FOLDER / name) == file.sha256, f"{name} has changed; {REMAKE}"


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("side", [448, 200])
def test_both_runtimes_give_the_same_label_map(chelsea: Path, background: bool, side: int) -> None:
    options = {"background": background, "short_side": side}
    wanted = Segmenter(StarterModel()).segment(chelsea, "cat,dog;wolf,table", **options)
    found = Segmenter(BuiltInModel()).segment(chelsea, "cat,dog;wolf,table", **options)
    assert (found.labels == wanted.labels).mean() > 0.9999, REMAKE
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


@pytest.mark.parametrize("photo", ["astronaut", "china", "flower", "rocket"])
def test_both_runtimes_label_photos_alike(photo: str) -> None:
    # Photos with regions drawn in, which are as good as any to compare on.
    image, classes = FOLDER / "pictures" / f"{photo}.jpg", "person,flower,rocket,building,sky,tree"
    wanted = Segmenter(load_model("starter", "cpu", in_torch=True)).segment(image, classes)
    found = Segmenter(load_model("starter", "cpu")).segment(image, classes)
    assert len(np.unique(wanted.labels)) > 1  # something is found
    assert (found.labels == wanted.labels).mean() > 0.9999, REMAKE


@pytest.mark.parametrize("device", ["auto", "cpu", "cpu:0"])
def test_onnx_runtime_is_the_first_choice_on_a_cpu(device: str) -> None:
    assert isinstance(load_model("starter", device), BuiltInModel)
    assert isinstance(load_model("starter", device, in_torch=True), StarterModel)


def test_a_named_accelerator_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(registry, "choose_device", lambda device: asked.append(device) or "cpu")
    assert isinstance(load_model("starter", "cuda:1"), StarterModel)
    assert asked == ["cuda:1"]


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Have packages that cannot be imported: a name bound to None in sys.modules raises."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def test_without_onnx_runtime_it_runs_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxruntime")
    assert isinstance(load_model("starter", "auto"), StarterModel)


def test_without_torch_it_runs_in_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    assert isinstance(load_model("starter"), BuiltInModel)
    with pytest.raises(UsageError, match="onnxruntime-gpu"):
        load_model("starter", "cuda").encode_image(np.zeros((1, 3, 32, 32), np.float32))
    with pytest.raises(MissingDependencyError, match=r"ovseg\[torch\]"):
        load_model("starter", in_torch=True)


def test_segmenting_does_not_import_torch(chelsea: Path) -> None:
    """Torch takes longer to import than the first mask may take."""
    program = (
        "import sys\n"
        "from ovseg_cli.__main__ import run\n"
        f"code = run(['segment', {str(chelsea)!r}, '--classes', 'cat,dog'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "torch was imported"


def test_both_runtimes_say_the_same_of_the_model() -> None:
    built_in, model = BuiltInModel(), StarterModel()
    for name in ("preprocessing", "templates", "threshold"):
        assert getattr(built_in, name) == getattr(model, name), REMAKE
    for name in ("name", "kind", "description", "licence"):
        assert getattr(built_in.card, name) == getattr(model.card, name), REMAKE
    assert built_in.known_words() == model.known_words()
    assert built_in.unknown(["xyzzy"]) == model.unknown(["xyzzy"])


def test_weights_are_in_the_package_once() -> None:
    graph = onnx.load(FOLDER / "graph.onnx", load_external_data=False)
    places = [
        {entry.key: entry.value for entry in one.external_data} for one in graph.graph.initializer
    ]
    shared = [place for place in places if place]
    names = ("weights.safetensors", "saliency.safetensors", "captions.safetensors")
    assert {place["location"] for place in shared} == set(names)
    size = sum((FOLDER / name).stat().st_size for name in names)
    assert sum(int(place["length"]) for place in shared) > 0.99 * size
    assert (FOLDER / "graph.onnx").stat().st_size < size / 20
    onnx.checker.check_model(str(FOLDER / "graph.onnx"), full_check=True)


def test_sharing_weights_changes_no_output(starter_folder: Path, tmp_path: Path) -> None:
    plain = starter_folder / "onnx" / "image.onnx"
    graph = onnx.load(plain)
    shutil.copy(FOLDER / "weights.safetensors", tmp_path)
    share_weights(graph, tmp_path / "weights.safetensors")
    onnx.save(graph, tmp_path / "graph.onnx")
    inputs = {
        "pixels": np.random.default_rng(0).normal(size=(1, 3, 96, 64)).astype(np.float32),
        "class_embeddings": np.eye(3, read_manifest(FOLDER).embedding_width, dtype=np.float32),
        "threshold": np.array(0.2, np.float32),
    }
    wanted, found = (
        onnxruntime.InferenceSession(path).run(["scores"], inputs)[0]
        for path in (plain, tmp_path / "graph.onnx")
    )
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_places_in_a_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)}
    save_file({**values, "count": np.ones(2, np.int64)}, tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    stored = {one.name: one for one in read_stored(tmp_path / "w.safetensors")}
    assert set(stored) == {"a", "b"}
    for name, one in stored.items():
        np.testing.assert_array_equal(one.values, values[name])
        assert content[one.offset : one.offset + one.length] == values[name].tobytes()


def test_the_default_model_needs_no_torch(chelsea: Path, tmp_path: Path) -> None:
    done = run_without(
        TORCH, ["segment", str(chelsea), "--classes", "cat,dog", "--output", str(tmp_path)]
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "chelsea.labels.png").is_file()


def test_without_any_runtime_the_command_is_named(chelsea: Path) -> None:
    done = run_without((*TORCH, "onnxruntime"), ["segment", str(chelsea), "--classes", "cat"])
    assert done.returncode == 1
    assert 'pip install "ovseg[onnx]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_in_an_environment_without_torch(
    chelsea: Path, starter_folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """As a deployment has it: the package of this tree with the extra `onnx`, and nothing else."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    python = tmp_path / "venv" / "bin" / "python"
    making = [uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")]
    subprocess.run(making, check=True)
    installing = [uv, "pip", "install", "--quiet", "--python", str(python), f"{ROOT}[onnx]"]
    installed = subprocess.run(installing, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"the packages cannot be fetched: {installed.stderr.strip()[-200:]}")
    absent = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    assert "ModuleNotFoundError" in absent.stderr
    for model in ("starter", str(starter_folder), str(tiny_folder)):
        command = [python, "-m", "ovseg_cli", "segment", str(chelsea), "--classes", "cat,dog"]
        output = tmp_path / Path(model).parent.name
        done = subprocess.run(
            [*command, "--model", model, "--output", str(output)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert (output / "chelsea.overlay.png").is_file()
