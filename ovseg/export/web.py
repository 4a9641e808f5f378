"""The built-in model as a folder with a page that segments in the browser itself, offline.

Everything is in scripts that `index.html` loads, large files in base64, so that it works when it is
opened from a disk as well as from any server. The graph is the package's own, made to take whole
photos; words are looked up in a table of all that can be grounded. ONNX Runtime's build for
browsers comes from the npm registry, once.
"""

import json
import shutil
import tarfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.data.class_list import ClassList
from ovseg.download import fetch, show_size
from ovseg.errors import DownloadError, MissingDependencyError, ModelError, UsageError
from ovseg.export.end_to_end import OUTPUTS, write_end_to_end
from ovseg.export.export import ExportOptions, ExportResult, check_output, replacing_folder
from ovseg.export.verify import Report, Row, photos, timed
from ovseg.files import cache_folder, sha256, write_text
from ovseg.inference.overlay import label_palette
from ovseg.inference.segmenter import Segmenter
from ovseg.models.exported import BuiltInModel
from ovseg.models.manifest import MANIFEST
from ovseg.models.registry import BUILT_IN
from ovseg.models.runtimes import open_graph
from ovseg.models.starter.heads import ENDS, MEASURES
from ovseg.models.starter.words import WordTable

VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
_SIZE = 33_106_585  # bytes
_DIST = "package/dist/"
_SCRIPT, _GLUE, _CODE = (
    "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
_MOST_BYTES = 40_000_000  # of one of these
_LEAST_AGREEMENT = 0.99
_CLASSES = ClassList.of(["cat", "person", "cup", "spoon", "table", "wall"])
_NOTICE = f"""The model and its words: see NOTICE.md.

ort.js and runtime.js hold ONNX Runtime for browsers (onnxruntime-web {VERSION}), copyright (c)
Microsoft Corporation, under the MIT License: https://github.com/microsoft/onnxruntime
"""


def export_web(
    model: str,
    output: Path,
    options: ExportOptions,
    on_step: Callable[[str], None] = lambda _: None,
) -> ExportResult:
    """Write the folder; what was there before is replaced when the new one is whole.

    Args:
        model: the built-in one's name.
        output: the folder.
        options: images to verify with; nothing else.
        on_step: told what is being done.

    Raises:
        UsageError: another model, another option, or `output` is something else than an export.
        MissingDependencyError: onnx is not installed.
        DownloadError: ONNX Runtime's files are not here and cannot be fetched.
        ModelError: the graph does not give the model's labels.
    """
    if model != BUILT_IN:
        raise UsageError(f"--format web is for {BUILT_IN}, whose words are a table: not {model}")
    if options.end_to_end or options.hub_layout:
        raise UsageError("--end-to-end and --hub-layout do not go with --format web")
    check_output(output)
    on_step("looking for ONNX Runtime's files")
    runtime = _runtime_files(_runtime_archive())
    with replacing_folder(output) as folder:
        on_step("writing the graph")
        graph = folder / "graph.onnx"
        built_in = BuiltInModel("cpu")
        _write_graph(built_in, graph)
        on_step("comparing with the model")
        report = Report(tuple(_rows(built_in, graph, options.images)), _LEAST_AGREEMENT, None, 1)
        if report.agreement < _LEAST_AGREEMENT:
            raise ModelError(f"the graph gives only {report.agreement:.2%} of the model's labels")
        on_step("writing the page")
        _write_page(folder, graph.read_bytes(), WordTable(), built_in.threshold, runtime)
        graph.unlink()
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        about = {"format": "web", "model": model, "files": sizes, "gate": report.to_values()}
        write_text(folder / MANIFEST, json.dumps(about, indent=2))
    return ExportResult(output, sizes, report)


def _runtime_archive() -> Path:
    """The package as the registry has it, compared with its checksum."""
    path = cache_folder() / "web" / f"onnxruntime-web-{VERSION}.tgz"
    if not path.is_file():
        import logging

        size = show_size(_SIZE)
        logging.getLogger(__name__).warning("downloading %s (%s)", ADDRESS, size)
    fetch(ADDRESS, path)
    if (found := sha256(path)) != SHA256:
        path.unlink()
        raise DownloadError(
            f"{path}: sha256 {found} where {SHA256} is right; deleted, fetch {ADDRESS} again"
        )
    return path


def _runtime_files(archive: Path) -> dict[str, bytes]:
    """The three files of the package that are needed."""
    found = {}
    try:
        with tarfile.open(archive) as opened:
            for name in (_SCRIPT, _GLUE, _CODE):
                member = opened.getmember(_DIST + name)
                stream = opened.extractfile(member)
                if stream is None or member.size > _MOST_BYTES:
                    raise DownloadError(f"{archive}: {name} is no file of the usual size")
                found[name] = stream.read()
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise DownloadError(f"{archive}: cannot be unpacked ({error})") from error
    return found


def _write_graph(model: BuiltInModel, path: Path) -> None:
    """The package's graph with its weights, from photo to label map."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("onnx", "export", "--format web") from error
    graph = model.folder / model.manifest.image_graph
    write_end_to_end(graph, path, model.preprocessing, "starter", model.manifest.pixels.cell)


def _rows(model: BuiltInModel, graph: Path, images: Sequence[Path]) -> Iterator[Row]:
    """The graph beside the segmenter, on photos."""
    session, segmenter = open_graph(graph, "cpu"), Segmenter(model)
    words = model.encode_text(_CLASSES.phrases, model.templates)
    threshold = np.array(model.threshold, np.float32)
    for name, image in photos(images):
        wanted = segmenter.segment(image, _CLASSES)
        inputs = {"image": image, "class_embeddings": words, "threshold": threshold}
        run = partial(session.run, OUTPUTS, inputs)
        labels, _, scores = run()
        yield Row(
            "page",
            name,
            image.shape[0],
            image.shape[1],
            difference=float(np.abs(wanted.group_scores - scores).max()),
            agreement=float((wanted.labels == labels).mean()),
            seconds=timed(run),
            model_seconds=timed(partial(segmenter.segment, image, _CLASSES)),
        )


def _write_page(
    folder: Path,
    graph: bytes,
    words: WordTable,
    threshold: float,
    runtime: Mapping[str, bytes],
) -> None:
    about = {
        "threshold": threshold,
        "palette": label_palette().tolist(),
        **word_table(words),
    }
    (folder / "ort.js").write_bytes(runtime[_SCRIPT])
    contents = {
        "runtime.js": {"glue": _text(runtime[_GLUE]), "code": _text(runtime[_CODE])},
        "graph.js": {"graph": _text(graph)},
        "words.js": about,
    }
    for name, values in contents.items():
        fields = json.dumps(values, separators=(",", ":"))
        write_text(folder / name, f"Object.assign((globalThis.OVSEG ??= {{}}), {fields});\n")
    page = files("ovseg.export.browser")
    for name in ("index.html", "app.js"):
        (folder / name).write_bytes(page.joinpath(name).read_bytes())
    notice = files("ovseg.models.starter").joinpath("NOTICE.md")
    (folder / "NOTICE.md").write_bytes(notice.read_bytes())
    write_text(folder / "NOTICE.txt", _NOTICE)
    shutil.copymode(folder / "index.html", folder / "ort.js")


def word_table(words: WordTable) -> dict[str, Any]:
    """What the page needs to make a phrase's embedding: all that can be worked out before, is.

    Of each word its shares in classes as pairs, whether it is one for surroundings, what captions
    say of it, and how far they are trusted; then what plurals become, and which words cannot be
    grounded.
    """
    known = words.words
    embeddings = np.stack([words.embedding(word) for word in known])
    classes, captions = len(words.classes), words.captions
    shares = [
        [
            value
            for index in np.flatnonzero(row)
            for value in (int(index), round(float(row[index]), 6))
        ]
        for row in embeddings[:, :classes]
    ]
    trusted, said = classes + captions - 1, slice(classes + captions, classes + 2 * captions - 1)
    return {
        "words": known,
        "shares": shares,
        "around": np.flatnonzero(embeddings[:, -1]).tolist(),
        "vectors": _text(embeddings[:, said].astype("<f4").tobytes()),
        "trust": [round(float(share), 6) for share in embeddings[:, trusted]],
        "classes": classes,
        "captions": captions,
        "singular": words.irregular,
        "refused": words.refused,
        "ends": sorted(ENDS),
        "measures": sorted(MEASURES),
    }


def _text(content: bytes) -> str:
    return b64encode(content).decode()
