"""Where the files of an export lie in its folder."""

from dataclasses import dataclass

from ovseg.models.export_description import Format

SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "onnx-int8": ".onnx",
    "torchscript": ".pt",
    "torch-export": ".pt2",
    "openvino": ".xml",
}
HUB_FOLDERS: dict[Format, str] = {
    "onnx": "onnx/",
    "onnx-int8": "onnx/",
    "torchscript": "torchscript/",
    "torch-export": "torch-export/",
    "openvino": "openvino/",
}


@dataclass(frozen=True)
class Layout:
    """Names of the graphs in the folder; `end_to_end` is None where it was not asked for."""

    image: str
    text: str
    end_to_end: str | None

    @classmethod
    def of(cls, format: Format, for_hub: bool, end_to_end: bool) -> "Layout":
        """Graphs lie in the folder itself, or for the hub in one named by the format."""
        folder, suffix = HUB_FOLDERS[format] if for_hub else "", SUFFIXES[format]
        whole = f"{folder}end_to_end{suffix}" if end_to_end else None
        return cls(f"{folder}image{suffix}", f"{folder}text{suffix}", whole)
