"""Makes the files in `made/`: one of every kind that ovseg writes, by version 0.1.0.

Run with version 0.1.0 at commit 6f94b80, from a checkout of it; then leave the files alone, for
they stand for those that people have.

    git worktree add ../before 6f94b80
    PYTHONPATH=../before python tests/compatibility/make.py

It goes through the command line only and imports nothing of ovseg: the tests repeat the commands
with the version of today, `building` apart, whose options have become keys of a recipe.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

MADE = Path(__file__).parent / "made"
WORDS = ("circle", "square", "triangle", "cross")
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "white": (250,) * 3}
LABELS = "a red circle,a blue square,a green triangle,grey ground"
WINDOWS = ("--short-side", "64", "--window", "32/16")

BUILD = (
    *("--entities", "entities.toml", "--image-size", "0", "--pairs-per-shard", "8"),
    *("--partners", "2", "--seed", "3", "--workers", "1"),
)
SIZES = (
    *("model.image.image_size=32", "model.image.width=16", "model.image.patch=8"),
    *("model.text.width=16", "model.text.mlp_width=32", "model.projector_width=32"),
    *("loss.mask.resolution=32", "data.batch_size=4", "train.seed=5"),
    *("schedule.learning_rate=0.01", "schedule.max_steps=4", "train.save_every=2"),
)


def settings(*more: str) -> list[str]:
    """`--set` before each."""
    return [part for setting in (*SIZES, *more) for part in ("--set", setting)]


def pretraining(data: Path, output: Path, *more: str) -> list[str]:
    """The command that trains the tiny model for four steps."""
    shards = f'data.shards=["{data}"]'
    return ["pretrain", "smoke", *settings(shards, *more), "--output", str(output)]


def segmenting(model: Path, picture: Path, output: Path, *more: str) -> list[str]:
    """The command that labels a picture and keeps scores and groups."""
    words = ["--classes", LABELS, "--device", "cpu", *more]
    kept = ["--output", str(output), "--save", "logits,groups"]
    return ["segment", str(picture), "--model", str(model), *words, *kept]


def building(photos: Path, output: Path) -> list[str]:
    """The command that builds the data set, to be given in the folder of `entities.toml`."""
    return ["build-dataset", str(photos), *BUILD, "--output", str(output)]


def write_sets(folder: Path) -> None:
    """VOC and COCO with one picture each, in their own layouts."""
    grey = np.full((48, 64, 3), 90, np.uint8)
    labels = np.zeros((48, 64), np.uint8)
    labels[8:40, 8:30] = 8
    write(folder / "voc/ImageSets/Segmentation/val.txt", "a\n")
    coco = np.where(labels == 0, 255, 16).astype(np.uint8)
    for name, pixels in {
        "voc/JPEGImages/a.jpg": grey,
        "voc/SegmentationClass/a.png": labels,
        "coco/val2017/000000000009.jpg": grey,
        "coco/stuffthingmaps/val2017/000000000009.png": coco,
    }.items():
        write(folder / name, "")
        Image.fromarray(pixels).save(folder / name)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


EVALUATED = [
    (model, name, protocol)
    for model in ("starter", "run/last.safetensors")
    for name in ("voc", "voc20", "coco-object", "coco-stuff")
    for protocol in ("own", "groupvit", "tcl", "sclip")
    if model == "starter" or (name, protocol) in (("voc", "own"), ("voc", "groupvit"))
]
"""Models, sets and protocols whose hashes are kept."""


def evaluating(model: str, name: str, protocol: str, sets: Path) -> list[str]:
    """The command that prints a result with its protocol's hash."""
    data = sets / ("voc" if name.startswith("voc") else "coco")
    chosen = ["--model", model, "--protocol", protocol, "--device", "cpu"]
    return ["eval", name, "--data", str(data), *chosen, "--json"]


def protocols() -> None:
    """Hashes of the protocols, by model, set and protocol."""
    with TemporaryDirectory() as folder:
        write_sets(Path(folder))
        results = {
            " ".join(which): json.loads(ovseg(*evaluating(*which, Path(folder))))
            for which in EVALUATED
        }
    hashes = {which: result["protocol"]["hash"] for which, result in results.items()}
    write(MADE / "protocols.json", json.dumps(hashes, indent=2) + "\n")


def main() -> None:
    shutil.rmtree(MADE, ignore_errors=True)
    MADE.mkdir()
    write_photos(MADE / "photos")
    listed = "\n".join(f'[[entity]]\nname = "{name}"\n' for name in WORDS)
    (MADE / "entities.toml").write_text(listed)
    ovseg(*building(Path("photos"), Path("dataset")))
    ovseg(*pretraining(Path("dataset"), Path("run")))
    write_tokenizer(MADE / "tokenizer")
    words = 'model.text.tokenizer="tokenizer"'
    ovseg(*pretraining(Path("dataset"), Path("wordpiece"), words))
    exports()
    labels()
    protocols()
    keep(MADE / "run", "checkpoints", "last.safetensors", "log.jsonl", "recipe.toml")
    keep(MADE / "wordpiece", "last.safetensors")
    for name in ("report.html", ".lock"):
        (MADE / "dataset" / name).unlink()
    shutil.rmtree(MADE / "tokenizer")


def exports() -> None:
    """The tiny model as an ONNX folder, whole and in eight bits."""
    checkpoint = "run/last.safetensors"
    for format in ("onnx", "onnx-int8"):
        picture = ["--images", "scene.png"]
        ovseg("export", checkpoint, "--format", format, "--output", format, *picture)


def labels() -> None:
    """What the models make of a picture."""
    picture = Path("scene.png")
    for name in ("run/last.safetensors", "wordpiece/last.safetensors", "onnx", "onnx-int8"):
        output = Path("labels") / name.replace("/", "-")
        ovseg(*segmenting(Path(name), picture, output))
        ovseg(*segmenting(Path(name), picture, Path(f"{output}-windows"), *WINDOWS))
    for overlay in (MADE / "labels").rglob("*.overlay.png"):
        overlay.unlink()


def ovseg(*arguments: str) -> str:
    """Run a command in `made/`; returns what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ovseg_cli", *arguments]
    run = subprocess.run(command, cwd=MADE, env=environment, check=True, stdout=subprocess.PIPE)
    return run.stdout.decode()


def keep(run: Path, *names: str) -> None:
    """Remove everything else of a run."""
    for path in run.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_photos(folder: Path) -> None:
    """Sixteen captioned pictures of shapes, and a scene of three to segment."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(11)
    for number in range(16):
        word = WORDS[int(random.integers(len(WORDS)))]
        colour = list(COLOURS)[int(random.integers(len(COLOURS)))]
        image = ground(random, (64, 64))
        draw(image, word, colour, random.integers(22, 42, 2), int(random.integers(10, 18)))
        image.save(folder / f"{number:02d}.jpg", quality=80)
        (folder / f"{number:02d}.txt").write_text(f"a {colour} {word} on grey ground")
    image = ground(random, (96, 64))
    draw(image, "circle", "red", (22, 20), 14)
    draw(image, "square", "blue", (72, 40), 16)
    draw(image, "triangle", "green", (34, 48), 12)
    image.save(folder.parent / "scene.png")


def ground(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    pixels = random.integers(90, 140, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def draw(image: Image.Image, word: str, colour: str, centre, radius: int) -> None:
    pen, value = ImageDraw.Draw(image), COLOURS[colour]
    x, y, r = int(centre[0]), int(centre[1]), radius
    if word == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), value)
    elif word == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), value)
    elif word == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], value)
    else:
        pen.line((x - r, y, x + r, y), value, 6)
        pen.line((x, y - r, x, y + r), value, 6)


def write_tokenizer(folder: Path) -> None:
    """A word-piece tokenizer of the captions' words, in the files that transformers reads."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, "a", "photo", "of", ".", "on", "grey", "ground", *COLOURS, *WORDS]
    vocabulary = {word: index for index, word in enumerate(words)}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(vocab=vocabulary)._tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(folder)


if __name__ == "__main__":
    main()
