"""What an export leaves behind, and what it leaves behind when it fails: nothing."""

import ctypes
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import ovseg
from ovseg.data.images import read_image
from ovseg.errors import MissingDependencyError, ModelError, UsageError
from ovseg.export import writers
from ovseg.export.export import ExportOptions, ExportResult, export_loaded
from ovseg.export.graphs import Found
from ovseg.export.quantise import WEIGHTS_ALONE, quantise_image
from ovseg.export.source import source_of
from ovseg.export.verify import Verifier, compare
from ovseg.export.writers import OPSET, GraphSpec, open_program
from ovseg.inference.segmenter import Segmenter
from ovseg.models import registry
from ovseg.models.manifest import Format
from ovseg.models.starter.model import StarterModel
from ovseg_cli.__main__ import run
from tests.export.conftest import ONE
from tests.export.models import tiny_predictor


def graphs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.onnx"))


def test_graphs_pass_the_checker_and_say_what_wrote_them(
    starter_folder: Path, tiny_folder: Path
) -> None:
    paths = [*graphs(starter_folder), *graphs(tiny_folder)]
    paths = [path for path in paths if path.name != "phrases.onnx"]  # copied as it ships
    assert [path.name for path in paths] == [
        "end_to_end.onnx",
        "image.onnx",
        "image.onnx",
        "text.onnx",
    ]
    for path in paths:
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        assert {one.key for one in model.metadata_props} >= {"ovseg", "torch", "onnx"}
        assert ("", OPSET) in [(one.domain, one.version) for one in model.opset_import]


def test_graphs_tell_nothing_of_the_machine(starter_folder: Path, tiny_folder: Path) -> None:
    for path in [*graphs(starter_folder), *graphs(tiny_folder)]:
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert str(Path(__file__).parent.parent.parent).encode() not in content


def test_sizes_and_classes_are_free(tiny_folder: Path) -> None:
    session = onnxruntime.InferenceSession(tiny_folder / "image.onnx")
    shapes = {one.name: one.shape for one in session.get_inputs()}
    assert shapes["pixels"][1] == 3
    assert all(isinstance(shapes["pixels"][axis], str) for axis in (0, 2, 3))
    assert isinstance(shapes["class_embeddings"][0], str)
    assert shapes["class_embeddings"][1] == 32


def test_nothing_in_the_folders_is_a_pickle(starter_folder: Path, tiny_folder: Path) -> None:
    for folder in (starter_folder, tiny_folder):
        for path in folder.rglob("*"):
            if path.is_file():
                assert not zipfile.is_zipfile(path)
                assert path.read_bytes()[:1] != b"\x80"  # a pickle's first opcode


def test_the_description_pins_versions_and_hashes(tiny_export: ExportResult) -> None:
    described = json.loads((tiny_export.folder / "export.json").read_text())
    assert described["opset"] == OPSET
    assert {"ovseg", "torch", "onnx", "onnxruntime", "python"} <= set(described["versions"])
    assert set(described["files"]) == set(tiny_export.files) - {"export.json"}
    assert described["gate"]["label_agreement"] >= 0.99
    assert {row["what"] for row in described["gate"]["rows"]} == {"graph", "segmenter"}
    assert len({(row["height"], row["width"]) for row in described["gate"]["rows"]}) == 3


def test_the_hub_layout(starter_folder: Path) -> None:
    card = (starter_folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: ovseg\npipeline_tag: image-segmentation\n")
    assert "license: other" in card
    assert json.dumps(StarterModel().card.licence) in card
    assert (starter_folder / "onnx" / "image.onnx").is_file()
    assert "*.onnx filter=lfs" in (starter_folder / ".gitattributes").read_text()
    values = json.loads((starter_folder / "preprocessor_config.json").read_text())
    assert values["image_mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("name", ["chelsea.jpg", "coffee.jpg"])
def test_end_to_end_takes_photos_as_they_are(
    starter_folder: Path, name: str, background: bool
) -> None:
    session = onnxruntime.InferenceSession(starter_folder / "onnx" / "end_to_end.onnx")
    image = read_image(Path(writers.__file__).parent / "images" / name)
    model = StarterModel()
    wanted = Segmenter(model).segment(image, "cat,cup,table", background=background)
    classes = model.encode_text(["cat", "cup", "table"], ("{}",)).numpy()
    threshold = np.array(model.threshold if background else -np.inf, np.float32)
    labels, groups, scores = session.run(
        None, {"image": image, "class_embeddings": classes, "threshold": threshold}
    )
    assert labels.shape == wanted.labels.shape
    assert (labels == wanted.labels).mean() > 0.99
    assert (groups == wanted.groups).all()
    assert scores.shape == wanted.group_scores.shape


@pytest.fixture
def written(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of the tiny model come from the export that is there, to save the time."""

    def copy(spec: GraphSpec, path: Path) -> None:
        name = "image.onnx" if spec.outputs == Found._fields else "text.onnx"
        shutil.copy(tiny_folder / name, path)

    monkeypatch.setattr(writers, "write_onnx", copy)


@pytest.mark.usefixtures("written")
def test_a_failing_verification_keeps_nothing(tmp_path: Path) -> None:
    """The weights written are not those of the model."""
    with pytest.raises(ModelError, match=r"not kept: .* of the labels are the model's"):
        export_loaded(tiny_predictor(seed=1), tmp_path / "out" / "x", ExportOptions(images=ONE))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("written")
def test_a_failing_verification_leaves_the_former_export(tiny_folder: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(tiny_folder, tmp_path / "all" / "out"))
    with pytest.raises(ModelError, match="not kept"):
        export_loaded(tiny_predictor(seed=1), output, ExportOptions(images=ONE))
    assert (output / "export.json").read_bytes() == (tiny_folder / "export.json").read_bytes()
    assert [path.name for path in output.parent.iterdir()] == ["out"]


@pytest.mark.usefixtures("written")
def test_a_passing_export_replaces_the_former(tiny_folder: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(tiny_folder, tmp_path / "all" / "out"))
    (output / "export.json").write_text("{}")
    done = export_loaded(tiny_predictor(), output, ExportOptions(images=ONE))
    assert json.loads((output / "export.json").read_text())["kind"] == "ovsegmentor"
    assert done.report.agreement >= 0.99
    assert [path.name for path in output.parent.iterdir()] == ["out"]


@pytest.mark.usefixtures("written")
def test_openvino_gives_the_same_labels(tmp_path: Path, chelsea: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    before = signal_stack()
    output = tmp_path / "out"
    done = export_loaded(tiny_predictor(), output, ExportOptions(format="openvino", images=ONE))
    assert {"image.xml", "image.bin", "text.xml", "text.bin"} <= set(done.files)
    assert done.report.agreement >= 0.99
    wanted = Segmenter(tiny_predictor()).segment(chelsea, "cat,dog,bird")
    found = Segmenter.from_pretrained(output).segment(chelsea, "cat,dog,bird")
    assert (found.labels == wanted.labels).mean() > 0.99
    # A handler on a stack that is unmapped with the model would end the process.
    assert signal_stack() == before


def signal_stack() -> bytes:
    """Where this thread's signal handlers run: the kernel's stack_t."""
    stack = ctypes.create_string_buffer(24)
    assert ctypes.CDLL(None).sigaltstack(None, stack) == 0
    return stack.raw


def _multiplies_eight_bits() -> bool:
    """Whether the processor has instructions that keep sums of eight-bit products whole."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text() if path.is_file() else ""
    return "vnni" in flags or "i8mm" in flags or "asimddp" in flags


def test_int8_keeps_eight_bit_weights(tiny_folder: Path, tmp_path: Path) -> None:
    verifier = Verifier(source_of(tiny_predictor()), ONE, "onnx-int8")
    assert verifier.least_agreement == 0.98
    how = quantise_image(
        tiny_folder / "image.onnx",
        tmp_path / "int8.onnx",
        verifier.references,
        verifier.least_agreement,
    )
    if how == WEIGHTS_ALONE and not _multiplies_eight_bits():
        pytest.skip("this processor cuts sums of eight-bit products off: labels would be lost")
    assert how == "dynamic, products, per channel"
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert kinds.count("MatMulInteger") + kinds.count("DynamicQuantizeMatMul") > 10


@pytest.mark.usefixtures("written")
def test_int8_passes_the_whole_verification(
    tmp_path: Path, chelsea: Path, tiny_export: ExportResult
) -> None:
    options = ExportOptions(format="onnx-int8", images=ONE, end_to_end=True, hub_layout=True)
    done = export_loaded(tiny_predictor(), tmp_path / "out", options)
    assert done.report.agreement >= 0.98
    assert {row.what for row in done.report.rows} == {"graph", "segmenter", "end-to-end"}
    for name in ("image.onnx", "text.onnx"):
        assert done.files[f"onnx/{name}"] < 0.6 * tiny_export.files[name]
    described = json.loads((tmp_path / "out" / "export.json").read_text())
    assert described["quantisation"] == done.quantisation != ""
    wanted = Segmenter(tiny_predictor()).segment(chelsea, "cat,dog,bird")
    found = Segmenter.from_pretrained(tmp_path / "out").segment(chelsea, "cat,dog,bird")
    assert (found.labels == wanted.labels).mean() > 0.98


def test_weights_alone_where_nothing_faster_keeps_the_labels(
    tiny_folder: Path, tmp_path: Path
) -> None:
    verifier = Verifier(source_of(tiny_predictor()), ONE, "onnx-int8")
    how = quantise_image(
        tiny_folder / "image.onnx", tmp_path / "int8.onnx", verifier.references, 1.01
    )
    assert how == WEIGHTS_ALONE
    program = open_program(tmp_path / "int8.onnx")
    for reference in verifier.references:
        assert compare(reference.found, program(reference.inputs)).same_labels > 0.98


@pytest.mark.parametrize("format", ["torchscript", "torch-export"])
def test_torch_formats_give_the_same_labels_and_are_not_run_by_ovseg(
    tmp_path: Path, format: Format
) -> None:
    done = export_loaded(
        tiny_predictor(), tmp_path / "out", ExportOptions(format=format, images=ONE)
    )
    assert done.report.agreement >= 0.99
    assert {row.what for row in done.report.rows} == {"graph"}
    with pytest.raises(ModelError, match="is a program, for applications"):
        Segmenter.from_pretrained(tmp_path / "out")


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear reader")
    with pytest.raises(UsageError, match="exists and is no export"):
        export_loaded(StarterModel(), tmp_path / "mine", ExportOptions(images=ONE))
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear reader"


def test_an_export_cannot_be_exported(tiny_folder: Path, tmp_path: Path) -> None:
    from ovseg.models.registry import load_model

    with pytest.raises(ModelError, match="cannot be exported again"):
        export_loaded(load_model(tiny_folder), tmp_path / "out", ExportOptions(images=ONE))


@pytest.mark.usefixtures("written")
def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_model", lambda *_, **__: tiny_predictor())
    steps: list[str] = []
    done = ovseg.export_model("mine", tmp_path / "out", images=[str(ONE[0])], on_step=steps.append)
    assert done.folder == tmp_path / "out"
    assert done.files.keys() >= {"image.onnx", "text.onnx", "export.json"}
    assert {row.image for row in done.report.rows} == {ONE[0].name}
    assert [steps[0], steps[-1]] == ["loading mine", "comparing with the model"]


def test_unknown_formats_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run(["export", "starter", "--format", "tflite", "--output", str(tmp_path / "out")])
    assert code == 2
    error = capsys.readouterr().err
    assert "choose onnx, onnx-int8, torchscript, torch-export, openvino" in error
    assert len(error.splitlines()) == 1


def test_end_to_end_goes_with_onnx_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["export", "starter", "--format", "torch-export", "--end-to-end"]
    assert run([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert "--end-to-end goes with" in capsys.readouterr().err


def test_a_missing_exporter_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    from ovseg.export.writers import require_exporter

    with pytest.raises(MissingDependencyError, match=r'pip install "ovseg\[export\]"'):
        require_exporter()


def test_unknown_models_are_named_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["export", "startre", "--output", str(tmp_path / "out")]) == 2
    assert "did you mean starter?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
