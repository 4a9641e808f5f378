"""Speeds of building a data set. Each line of output is one figure.

    python -m tests.benchmarks.bench_corpus match [--captions cc3m-validation.tsv]
    python -m tests.benchmarks.bench_corpus ratios [--captions cc3m-validation.tsv]
    python -m tests.benchmarks.bench_corpus images [--photos FOLDER]
    python -m tests.benchmarks.bench_corpus shards

Without a file or folder, captions and photos are made up. `match` makes a file of `--rows` rows
(12.4 million, 2 GB) by repeating and perturbing the captions and runs everything up to the plan on
it. `ratios` compares with a loop that tokenises and looks words up, and with a tagger over every
caption, one core each. `images` compares decoders on photos scaled to 0.8 and 3 megapixels.
`shards` writes images that are already encoded.
"""

import argparse
import io
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import polars as pl
from PIL import Image

from ovseg.data.build.columns import Layout
from ovseg.data.build.encoding import prepare_image
from ovseg.data.build.engine import Engine
from ovseg.data.build.matching import Matcher
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, make_plan
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.build.tables import read_table
from ovseg.data.dataset.entities import load_entities
from ovseg.data.dataset.folder import Dataset, ImageOptions
from ovseg.data.dataset.plan import PlanSummary, Tally
from ovseg.data.dataset.shards import PlanRow, PreparedImage, write_shard
from tests.benchmarks.sizes import full

_PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["match", "ratios", "images", "shards"])
    parser.add_argument("--captions", type=Path, help="as CC3M's: caption, tab, URL; else made up")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs; else made up")
    parser.add_argument("--rows", type=int, default=full(12_400_000, 2_000))
    parser.add_argument("--workers", type=int, default=2, help="processes that match")
    parser.add_argument("--folder", type=Path, help="where the large file may lie")
    options = parser.parse_args()
    if options.captions and not options.captions.is_file():
        sys.exit(f"bench_corpus: {options.captions}: no such file")
    if options.photos and not any(options.photos.rglob("*.jpg")):
        sys.exit(f"bench_corpus: {options.photos}: no folder with .jpg files")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.what == "match":
            captions = options.captions or made_captions(folder / "made.tsv")
            bench_match(captions, options.rows, folder, options.workers)
        elif options.what == "ratios":
            bench_ratios(options.captions or made_captions(folder / "made.tsv"))
        elif options.what == "images":
            bench_images(options.photos or made_photos(folder))
        else:
            bench_shards(folder)


def made_captions(path: Path) -> Path:
    """Sentences as captions have them, most of which name an entity, with addresses."""
    chance = random.Random(0)
    names = [entity.name for entity in load_entities("paper100")]
    openings = ("a photo of", "close up of", "young", "the view from", "vector illustration of")
    endings = (
        "on a sunny day",
        "at the end of it all",
        "in black and white",
        "with a lot of noise",
    )
    with path.open("w", encoding="utf-8") as stream:
        for number in range(full(15_000, 600)):
            thing = chance.choice(names) if chance.random() < 0.6 else "something else"
            caption = f"{chance.choice(openings)} {thing} {chance.choice(endings)}"
            stream.write(f"{caption}\thttp://example.org/{number}.jpg\n")
    return path


def made_photos(folder: Path) -> Path:
    """Smooth pictures of 640 x 480 pixels with a little noise."""
    draw = np.random.default_rng(0)
    for number in range(full(32, 2)):
        coarse = draw.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(smooth + draw.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:02d}.jpg"), noisy)
    return folder


def bench_match(captions: Path, rows: int, folder: Path, workers: int) -> None:
    """Read, clean, match and plan a file in CC12M's layout; time and peak memory."""
    table = folder / "captions.tsv"
    _write_many(captions, rows, table)
    source = resolve_source("cc12m", str(table), Columns(), None)
    options = BuildOptions(EntityOptions("paper100"), engine=Engine(workers=workers))
    dataset = Dataset(folder)
    before, start = _busy(), time.perf_counter()
    make_plan(source, dataset, load_entities("paper100"), options)
    seconds, busy = time.perf_counter() - start, _busy() - before
    own, children = (resource.getrusage(kind).ru_maxrss for kind in _PROCESSES)
    # Linux gives the largest child's peak: the sum is an upper bound.
    peak = own + (workers * children if workers > 1 else 0)
    plan = dataset.load_plan_summary() or PlanSummary()
    print(f"{plan.tally.read:,} rows, {plan.rows:,} matched, {workers} processes")
    print(f"{seconds:.1f} s, {plan.tally.read / seconds:,.0f} rows/s, processor {busy:.1f} s")
    print(f"peak memory {peak / 1e6:.2f} GB at most")


def _busy() -> float:
    """Processor seconds of this process and of its children that have ended."""
    used = [resource.getrusage(kind) for kind in _PROCESSES]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _write_many(captions: Path, rows: int, table: Path) -> None:
    """Captions over and over, each time cut at another place with the halves exchanged."""
    pairs = [line.rstrip("\n").split("\t") for line in captions.open(encoding="utf-8")]
    chance = random.Random(0)
    with table.open("w", encoding="utf-8") as stream:
        for start in range(0, rows, len(pairs)):
            for caption, url in pairs[: rows - start]:
                words = caption.split(" ")
                cut = chance.randrange(len(words))
                stream.write(f"{url}?{start}\t{' '.join(words[cut:] + words[:cut])}\n")


def bench_ratios(captions: Path) -> None:
    """Captions per second on one core: ours, tokenise and look up, and a tagger."""
    from nltk.tokenize import NLTKWordTokenizer

    from ovseg.data.build.tagging import Tagger

    texts = pl.concat(read_table(str(captions), Layout("tsv", 1, (0,)), Tally()))["caption"]
    entities = load_entities("paper100")
    matcher = Matcher(entities)
    many = pl.concat([texts] * full(6, 1))
    ours = len(many) / _seconds(lambda: matcher.match(many), 5)
    words = {form for entity in entities for form in entity.forms}
    tokenizer = NLTKWordTokenizer()

    def look_up() -> list[list[str]]:
        return [[w for w in tokenizer.tokenize(t.lower()) if w in words] for t in texts[:4000]]

    loop = min(len(texts), 4000) / _seconds(look_up, 2)
    tagger = Tagger()
    tagged = min(len(texts), 1500) / _seconds(lambda: list(tagger.nouns(texts[:1500].to_list())), 1)
    print(f"match {ours:,.0f} captions/s, loop {loop:,.0f}, tagger {tagged:,.0f}")
    print(f"ratio to the loop {ours / loop:.0f}x, to the tagger {ours / tagged:.0f}x")


def bench_images(photos: Path) -> None:
    """Images per second: ours beside OpenCV at full and at reduced scale, all to 256 pixels."""
    cv2.setNumThreads(1)
    files = sorted(photos.rglob("*.jpg"))[:32]
    options = ImageOptions()
    for megapixels in (0.8, 3.0):
        data = [_scaled(path, megapixels) for path in files]
        runs: list[tuple[str, Callable[[bytes], object]]] = [
            ("ours (Pillow, reduced scale)", lambda item: prepare_image(item, options)),
            ("OpenCV, reduced scale", lambda item: _opencv(item, reduced=True)),
            ("OpenCV, full scale", lambda item: _opencv(item, reduced=False)),
        ]
        for name, run in runs:
            seconds = _seconds(lambda run=run, data=data: [run(item) for item in data], 3)
            print(f"{megapixels} megapixels, {name}: {len(data) / seconds:.0f} images/s")


def _scaled(path: Path, megapixels: float) -> bytes:
    with Image.open(path) as image:
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        size = round(image.width * scale), round(image.height * scale)
        stream = io.BytesIO()
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        return stream.getvalue()


def _opencv(data: bytes, reduced: bool) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as header:
        width, height = header.size
    times = min(width, height) // 256 if reduced else 1
    flags = {2: cv2.IMREAD_REDUCED_COLOR_2, 3: cv2.IMREAD_REDUCED_COLOR_2}
    flag = flags.get(times, cv2.IMREAD_REDUCED_COLOR_4 if times > 3 else cv2.IMREAD_COLOR)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    scale = 256 / min(width, height)
    size = round(width * scale), round(height * scale)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]


def bench_shards(folder: Path) -> None:
    """Samples per second from images in memory to a shard with all its files."""
    data = np.random.default_rng(0).bytes(20_000)
    caption = "a dog on a sofa " * 5
    rows = [
        PlanRow(f"http://a/{n}.jpg", caption, None, None, [49, 30], [2, 11], [5, 15])
        for n in range(full(5000, 50))
    ]
    images = [PreparedImage(data, 341, 256)] * len(rows)
    names = [entity.name for entity in load_entities("paper100")]
    seconds = _seconds(lambda: write_shard(folder, 0, rows, images, names), 3)
    print(f"{len(rows) / seconds:,.0f} samples/s")


def _seconds(run: Callable[[], object], times: int) -> float:
    """Processor time of this process, the best of several runs: others may be at work here."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
