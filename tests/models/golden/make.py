"""Write what the models give with the libraries that are installed.

    python -m tests.models.golden.make

The range of versions that a value was seen with grows where it is still the same.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch

from tests.models.golden.small import MODELS, summary

PATH = Path(__file__).with_name("seen.json")


@torch.inference_mode()
def main() -> None:
    known = json.loads(PATH.read_text()) if PATH.is_file() else {}
    for name, (library, compute) in MODELS.items():
        values, installed = summary(compute()), version(library)
        before = known.get(name, {})
        same = bool(before) and _near(before["values"], values)
        first = before["from"] if same else installed
        known[name] = {
            "library": library,
            "from": first,
            "to": installed,
            "values": before["values"] if same else values,
        }
    PATH.write_text(json.dumps(known, indent=1) + "\n")


def _near(before: dict[str, list[float]], after: dict[str, list[float]]) -> bool:
    return all(
        len(after[key]) == len(values)
        and all(abs(a - b) < 1e-4 for a, b in zip(values, after[key], strict=True))
        for key, values in before.items()
    )


if __name__ == "__main__":
    main()
