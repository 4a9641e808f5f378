"""Make the built-in model's graph for ONNX Runtime from its weights.

    pip install "ovseg[export]"
    python tools/make_starter_graph.py

Run it whenever the starter's network, weights or words change; a test says so if it was forgotten.
Writes graph.onnx and export.json beside the files of weights, which the graph points into, so that
the package carries the weights once. With them `pip install "ovseg[onnx]"` segments without torch.
"""

import tempfile
from pathlib import Path

import onnx

from ovseg.export.export import describe
from ovseg.export.shared_weights import share_weights
from ovseg.export.source import source_of
from ovseg.export.writers import image_spec, save_checked, write_onnx
from ovseg.models.manifest import Layout, write_manifest
from ovseg.models.starter.model import StarterModel

FOLDER = Path(__file__).parent.parent / "ovseg/models/starter"
GRAPH = "graph.onnx"
WEIGHTS = ("weights.safetensors", "saliency.safetensors", "captions.safetensors")


def main(folder: Path = FOLDER) -> None:
    """Write the two files into a folder that holds the weights."""
    source = source_of(StarterModel())
    with tempfile.TemporaryDirectory() as scratch:
        write_onnx(image_spec(source), Path(scratch) / GRAPH)
        graph = onnx.load(Path(scratch) / GRAPH)
    for name in WEIGHTS:
        share_weights(graph, folder / name)
    save_checked(graph, folder / GRAPH)
    names = (GRAPH, *WEIGHTS, *source.tables)
    write_manifest(describe(source, "onnx", Layout(GRAPH, "", None), folder, names), folder)
    print(f"{folder / GRAPH}: {(folder / GRAPH).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
