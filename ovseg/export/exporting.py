"""From a model to a folder that is verified, or to nothing."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ovseg.errors import DataError, UsageError
from ovseg.export.description import describe, write_description
from ovseg.export.end_to_end import write_end_to_end
from ovseg.export.gate import Gate, Report
from ovseg.export.hub import write_hub_files
from ovseg.export.layout import Layout
from ovseg.export.onnx_files import require_exporter, write_image_onnx, write_text_onnx
from ovseg.export.openvino_files import require_openvino, write_openvino
from ovseg.export.programs import open_program
from ovseg.export.quantisation import WEIGHTS_ALONE, quantise_image, quantise_text
from ovseg.export.source import Source, source_of
from ovseg.export.torch_files import (
    write_image_program,
    write_image_torchscript,
    write_text_program,
    write_text_torchscript,
)
from ovseg.models.export_description import EXPORT_DESCRIPTION, Format
from ovseg.models.exported import RUNNABLE, WORDS_FOLDER, read_exported
from ovseg.models.interface import SegmentationModel
from ovseg.models.registry import load_model

FORMATS: tuple[Format, ...] = get_args(Format)
END_TO_END_FORMATS = ("onnx", "onnx-int8")


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        format: of the graphs.
        end_to_end: also write a graph that takes images of any size as they are.
        hub_layout: also write a model card and what the Hugging Face hub expects beside it.
        images: files to verify and calibrate with; photos of the package if there are none.
    """

    format: Format = "onnx"
    end_to_end: bool = False
    hub_layout: bool = False
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Attributes:
        folder: where it is.
        files: bytes of each file, by its name in the folder.
        report: what the gate measured.
        quantisation: how int8 was made; "" for others.
    """

    folder: Path
    files: dict[str, int]
    report: Report
    quantisation: str = ""


def check_format(name: str) -> Format:
    """A format by name.

    Raises:
        UsageError: there is none of that name.
    """
    for format in FORMATS:
        if name == format:
            return format
    raise UsageError(f"unknown format {name!r}: choose {', '.join(FORMATS)}")


def export_model(
    name: str,
    output: Path,
    options: ExportOptions | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Export a model by name or file, and verify it.

    Nothing appears at `output` before the export has passed the gate; an export that was there is
    then replaced.

    Args:
        name: of the model, as `ovseg segment --model` takes it.
        output: the folder to write.
        options: how.
        on_step: told what is being done.

    Raises:
        UsageError: options that do not go together, or `output` is something else than an export.
        ModelError: the model cannot be exported, or the export does not give its labels.
        MissingDependencyError: a package is missing that the format needs.
        DataError: the folder cannot be written.
    """
    options = options or ExportOptions()
    _check(output, options)
    on_step(f"loading {name}")
    return export_loaded(load_model(name, "cpu", in_torch=True), output, options, on_step)


def export_loaded(
    model: SegmentationModel,
    output: Path,
    options: ExportOptions,
    on_step: Callable[[str], None] = lambda _: None,
) -> Exported:
    """The same for a model at hand; it is brought to the CPU and to float32."""
    _check(output, options)
    source = source_of(model.to("cpu"))
    gate = Gate(source, options.images, options.format)
    with _replacing_folder(output) as folder:
        layout = Layout.of(options.format, options.hub_layout, options.end_to_end)
        exporting = _Exporting(source, gate, options, folder, layout, on_step)
        report, quantisation = exporting.run()
        files = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return Exported(output, files, report, quantisation)


class _Exporting:
    """One export, step by step, into a temporary folder."""

    def __init__(
        self,
        source: Source,
        gate: Gate,
        options: ExportOptions,
        folder: Path,
        layout: Layout,
        on_step: Callable[[str], None],
    ) -> None:
        self.source = source
        self.gate = gate
        self.options = options
        self.folder = folder
        self.layout = layout
        self.on_step = on_step

    def run(self) -> tuple[Report, str]:
        """Write, verify, describe; returns the gate's report and how int8 was made."""
        for name in (self.layout.image, self.layout.text, f"{WORDS_FOLDER}/x"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        self.on_step("writing the image graph")
        quantisation = self._write_image()
        if self.source.text is not None:
            self.on_step("writing the text graph")
            self._write_text(weights_alone=quantisation == WEIGHTS_ALONE)
        self._write_words()
        described = describe(self.source, self.options.format, self.layout, self.folder)
        described = described.model_copy(update={"quantisation": quantisation})
        write_description(described, self.folder)
        self.on_step("comparing with the model")
        report = self._verify()
        described = described.model_copy(update={"gate": report.to_values()})
        write_description(described, self.folder)
        if self.options.hub_layout:
            write_hub_files(self.folder, described, report)
        return report, quantisation

    def _write_image(self) -> str:
        path, quantisation = self.folder / self.layout.image, ""
        if self.options.format == "torchscript":
            write_image_torchscript(self.source, path)
        elif self.options.format == "torch-export":
            write_image_program(self.source, path)
        else:
            quantisation = self._write_image_from_onnx(path)
        return quantisation

    def _write_image_from_onnx(self, path: Path) -> str:
        with tempfile.TemporaryDirectory() as scratch:
            plain = path if self.options.format == "onnx" else Path(scratch) / "image.onnx"
            write_image_onnx(self.source, plain)
            quantisation = ""
            if self.options.format == "onnx-int8":
                self.on_step("quantising the image graph")
                least = self.gate.least_agreement
                quantisation = quantise_image(plain, path, self.gate.samples, least)
            elif self.options.format == "openvino":
                write_openvino(plain, path)
        if self.layout.end_to_end is not None:
            write_end_to_end(
                path,
                self.folder / self.layout.end_to_end,
                self.source.model.preprocessing,
                self.source.kind,
                self.source.cell,
            )
        return quantisation

    def _write_text(self, weights_alone: bool) -> None:
        text, path = self.source.text, self.folder / self.layout.text
        assert text is not None
        if self.options.format == "torchscript":
            write_text_torchscript(text.graph, path)
        elif self.options.format == "torch-export":
            write_text_program(text.graph, path)
        else:
            self._write_text_from_onnx(text.graph, path, weights_alone)
        for name, content in text.files.items():
            (self.folder / name).write_text(content, encoding="utf-8")

    def _write_text_from_onnx(self, graph: Any, path: Path, weights_alone: bool) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            plain = path if self.options.format == "onnx" else Path(scratch) / "text.onnx"
            write_text_onnx(graph, plain)
            if self.options.format == "onnx-int8":
                quantise_text(plain, path, weights_alone)
            elif self.options.format == "openvino":
                write_openvino(plain, path)

    def _write_words(self) -> None:
        folder = self.folder / WORDS_FOLDER
        for name, content in self.source.tables.items():
            (folder / name).write_bytes(content)
        if not self.source.tables:
            folder.rmdir()

    def _verify(self) -> Report:
        runs = self.options.format in RUNNABLE
        exported = read_exported(self.folder, "cpu") if runs else None
        whole = self.layout.end_to_end
        return self.gate.check(
            open_program(self.folder / self.layout.image),
            exported,
            None if whole is None else self.folder / whole,
        )


def _check(output: Path, options: ExportOptions) -> None:
    """Refuse what cannot work before any time is spent on it."""
    if options.end_to_end and options.format not in END_TO_END_FORMATS:
        allowed = " and ".join(END_TO_END_FORMATS)
        raise UsageError(f"--end-to-end goes with the formats {allowed}, not {options.format}")
    if output.exists() and not (output / EXPORT_DESCRIPTION).is_file():
        empty = output.is_dir() and not any(output.iterdir())
        if not empty:
            raise UsageError(f"{output}: exists and is no export; name another folder")
    if options.format not in ("torchscript", "torch-export"):
        require_exporter()
    if options.format == "openvino":
        require_openvino()


@contextmanager
def _replacing_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place on success and vanishes otherwise."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if output.exists():
            former = temporary.with_name(f"{temporary.name}.former")
            output.rename(former)
            temporary.rename(output)
            shutil.rmtree(former)
        else:
            temporary.rename(output)
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
