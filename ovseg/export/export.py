"""From a model to a folder that is verified, or to nothing."""

import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from ovseg.errors import DataError, ModelError, UsageError
from ovseg.export.end_to_end import write_end_to_end
from ovseg.export.hub import write_hub_files
from ovseg.export.quantise import WEIGHTS_ALONE, quantise_image, quantise_text
from ovseg.export.source import ExportSource, source_of
from ovseg.export.verify import Report, Verifier
from ovseg.export.writers import (
    OPSET,
    GraphSpec,
    image_spec,
    open_program,
    require_exporter,
    require_openvino,
    text_spec,
    write_graph,
)
from ovseg.files import local_path
from ovseg.locks import holding_file
from ovseg.models.exported import RUNNABLE, read_exported
from ovseg.models.interface import SegmentationModel, is_dense
from ovseg.models.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    TOKENIZER,
    WORDS_FOLDER,
    Card,
    Format,
    Layout,
    Manifest,
    PixelRule,
    PositionRule,
    TextRule,
    content_hash,
    installed_versions,
    list_files,
    write_manifest,
)

FORMATS: tuple[Format, ...] = get_args(Format)
WEB = "web"
"""A page with the built-in model in it, which `ovseg.export.web` writes."""
END_TO_END_FORMATS = ("onnx", "onnx-int8")
_NEW, _FORMER = ".new", ".former"  # how the names end of folders on their way


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
class ExportResult:
    """What an export left behind.

    Attributes:
        folder: where it is.
        files: bytes of each file, by its name in the folder.
        report: what verifying it measured.
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
    raise UsageError(f"unknown format {name!r}: choose {', '.join((*FORMATS, WEB))}")


def export_loaded(
    model: SegmentationModel,
    output: Path,
    options: ExportOptions,
    on_step: Callable[[str], None] = lambda _: None,
) -> ExportResult:
    """Export a model at hand, and verify it; it is brought to the CPU and to float32.

    Nothing appears at `output` before the export is verified; one that was there is then replaced.

    Args:
        model: the model, in torch.
        output: the folder to write.
        options: how.
        on_step: told what is being done.

    Raises:
        OvsegError: as `ovseg.export_model`.
    """
    check_request(output, options)
    source = source_of(model.to("cpu"))
    verifier = Verifier(source, options.images, options.format)
    with replacing_folder(output) as folder:
        report, quantisation = _Exporting(source, verifier, options, folder, on_step).run()
        files = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return ExportResult(output, files, report, quantisation)


def describe(
    source: ExportSource,
    format: Format,
    layout: Layout,
    folder: Path,
    names: Collection[str] | None = None,
) -> Manifest:
    """The manifest of an export whose graphs are written.

    Args:
        source: the model.
        format, layout: how its graphs are written and named.
        folder: where they are.
        names: the files of the export, if the folder holds others beside them.
    """
    found = list_files(folder, names)
    model, text = source.model, source.text
    reading = model.reading if is_dense(model) else None
    return Manifest(
        format_version=FORMAT_VERSION,
        format=format,
        kind=source.kind,
        card=Card(
            name=model.card.name,
            description=model.card.description,
            licence=model.card.licence,
            content_hash=content_hash(found),
        ),
        pixels=PixelRule(
            **asdict(model.preprocessing), cell=source.cell, stretches=source.stretches
        ),
        templates=model.templates,
        threshold=model.threshold,
        scale=source.scale,
        embedding_width=source.embedding_width,
        image_graph=layout.image,
        end_to_end_graph=layout.end_to_end,
        text=None
        if text is None
        else TextRule(
            graph=layout.text,
            tokenizer=TOKENIZER,
            max_tokens=text.max_tokens,
            pad_id=text.pad_id,
        ),
        reading=None if reading is None else PositionRule(**asdict(reading)),
        aligned=source.aligned,
        taught=source.taught,
        features="features" in getattr(source.image, "outputs", ()),
        stages="stages" in getattr(source.image, "outputs", ()),
        weights="weights" in getattr(source.image, "outputs", ()),
        opset=OPSET if format.startswith("onnx") else None,
        versions=installed_versions(),
        files=found,
    )


class _Exporting:
    """One export, step by step, into a temporary folder."""

    def __init__(
        self,
        source: ExportSource,
        verifier: Verifier,
        options: ExportOptions,
        folder: Path,
        on_step: Callable[[str], None],
    ) -> None:
        self.source = source
        self.verifier = verifier
        self.options = options
        self.folder = folder
        self.layout = Layout.of(options.format, options.hub_layout, options.end_to_end)
        self.on_step = on_step

    def run(self) -> tuple[Report, str]:
        """Write, verify, describe; returns what was measured and how int8 was made."""
        for name in (self.layout.image, self.layout.text):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        quantisation = self._write_image()
        self._write_text(weights_alone=quantisation == WEIGHTS_ALONE)
        self._write_words()
        manifest = describe(self.source, self.options.format, self.layout, self.folder)
        manifest = manifest.model_copy(update={"quantisation": quantisation})
        write_manifest(manifest, self.folder)
        self.on_step("comparing with the model")
        report = self._verify()
        manifest = manifest.model_copy(update={"gate": report.to_values()})
        write_manifest(manifest, self.folder)
        if self.options.hub_layout:
            write_hub_files(self.folder, manifest, report)
        return report, quantisation

    def _write_image(self) -> str:
        """Write the image graph, and the one around it for whole photos; returns how int8 was."""
        if self.layout.end_to_end is not None:
            self._refuse_whole_photos()
        self.on_step("writing the image graph")
        path = self.folder / self.layout.image
        quantisation = self._write(image_spec(self.source), path, self._quantise_image)
        if self.layout.end_to_end is not None:
            write_end_to_end(
                path,
                self.folder / self.layout.end_to_end,
                self.source.model.preprocessing,
                self.source.kind,
                self.source.cell,
                self.source.aligned,
                is_dense(self.source.model),
            )
        return quantisation

    def _refuse_whole_photos(self) -> None:
        """A graph for whole photos looks at them once, and resizes by OpenCV's rule."""
        if self.source.model.preprocessing.resample != "bilinear" or self.source.stretches:
            raise ModelError(
                f"{self.source.kind} models resize images as no graph for whole photos does: "
                "export it without --end-to-end"
            )
        if self.source.aligned is not None and len(self.source.aligned.scales) > 1:
            raise ModelError(
                "this model averages what it sees at several sizes, which no graph for whole "
                "photos does: export it without --end-to-end"
            )

    def _quantise_image(self, plain: Path, path: Path) -> str:
        self.on_step("quantising the image graph")
        references, least = self.verifier.references, self.verifier.least_agreement
        return quantise_image(plain, path, references, least)

    def _write_text(self, weights_alone: bool) -> None:
        """Write the text graph and its tokenizer, where the vocabulary is open."""
        text = self.source.text
        if text is None:
            return
        self.on_step("writing the text graph")
        quantise = partial(quantise_text, weights_alone=weights_alone)
        self._write(text_spec(self.source), self.folder / self.layout.text, quantise)
        for name, content in text.files.items():
            (self.folder / name).write_text(content, encoding="utf-8")

    def _write(self, spec: GraphSpec, path: Path, quantise: Callable[[Path, Path], str]) -> str:
        """Write a graph in the format asked for; returns how it was brought to eight bits."""
        if self.options.format != "onnx-int8":
            write_graph(spec, self.options.format, path)
            return ""
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / "graph.onnx"
            write_graph(spec, "onnx", plain)
            return quantise(plain, path)

    def _write_words(self) -> None:
        """Write the tables of a closed vocabulary."""
        folder = self.folder / WORDS_FOLDER
        for name, content in self.source.tables.items():
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    def _verify(self) -> Report:
        runs = self.options.format in RUNNABLE
        exported = read_exported(self.folder, "cpu") if runs else None
        whole = self.layout.end_to_end
        return self.verifier.check(
            open_program(self.folder / self.layout.image),
            exported,
            None if whole is None else self.folder / whole,
        )


def check_request(output: Path, options: ExportOptions) -> None:
    """Refuse what cannot work before any time is spent on it.

    Raises:
        UsageError: options that do not go together, or `output` is something else than an export.
        MissingDependencyError: a package is missing that the format needs.
    """
    check_output(output)
    if options.end_to_end and options.format not in END_TO_END_FORMATS:
        allowed = " and ".join(END_TO_END_FORMATS)
        raise UsageError(f"--end-to-end goes with the formats {allowed}, not {options.format}")
    if options.format not in ("torchscript", "torch-export"):
        require_exporter()
    if options.format == "openvino":
        require_openvino()


def check_output(output: Path) -> None:
    """Refuse a folder that something else than an export would vanish from.

    Raises:
        UsageError: it is one.
    """
    local_path(output)
    if output.exists() and not (output / MANIFEST).is_file():
        empty = output.is_dir() and not any(output.iterdir())
        if not empty:
            raise UsageError(f"{output}: exists and is no export; name another folder")


@contextmanager
def replacing_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place on success and vanishes otherwise.

    Raises:
        UsageError: another run is writing there.
        DataError: it cannot be written.
    """
    mark = f".{output.name}.ovseg-"
    with holding_file(output):
        try:
            _recover(output, mark)
            temporary = Path(tempfile.mkdtemp(prefix=mark, suffix=_NEW, dir=output.parent))
            try:
                yield temporary
                temporary.chmod(0o755)
                if output.exists():
                    former = temporary.with_suffix(_FORMER)
                    output.rename(former)
                    temporary.rename(output)
                    shutil.rmtree(former)
                else:
                    temporary.rename(output)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise DataError(f"{output}: cannot be written: {error.strerror or error}") from error


def _recover(output: Path, mark: str) -> None:
    """Put back the export that a killed run had taken away, and remove what else it left."""
    ours = re.compile(rf"{re.escape(mark)}[a-z0-9_]{{8}}({_NEW}|{_FORMER})")
    for path in sorted(output.parent.iterdir()):
        if not ours.fullmatch(path.name) or path.is_symlink():
            continue
        if path.suffix == _FORMER and not output.exists():
            path.rename(output)
        else:
            shutil.rmtree(path)
