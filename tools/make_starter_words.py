"""Make the word tables of ovseg/models/starter: words.json.gz and neighbours.json.gz.

    apt-get install wordnet-base          # WordNet 3.0, whose synset offsets ImageNet's ids are
    pip install "ovseg[torch]"            # timm carries the list of the 1,000 ids
    python tools/make_starter_words.py

The first table holds the entries of groundings.toml, learned.toml and surroundings.toml, and for
every other noun of WordNet that has an ImageNet class at or below one of its
senses, those senses with their use (counts in WordNet's tagged texts) and their classes. The second
holds, for other nouns, a sense just above that has classes, from which neighbours are suggested.
"""

import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from timm.data import ImageNetInfo

from ovseg.files import replacing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORDNET = Path("/usr/share/wordnet")
TARGET = Path(__file__).parent.parent / "ovseg/models/starter"
# Above these, "the classes below" says nothing about what a thing looks like.
TOO_GENERAL = 200
# Suggestions for a word without classes come from a sense at most so many steps above it, with at
# most so many classes: further away they have nothing to do with the word.
NEAR = 2
NEIGHBOURHOOD = 60


class Synset(NamedTuple):
    lemmas: list[str]
    sense_keys: list[str]
    parents: list[str]


def read_synsets() -> dict[str, Synset]:
    """Offset -> synset, for the nouns; `@` and `@i` point to what lies above."""
    synsets = {}
    for line in (WORDNET / "data.noun").read_text(encoding="ascii").splitlines():
        if line.startswith("  "):
            continue  # the licence
        offset, file_number, _kind, count, *rest = line.split(" | ")[0].split()
        words = [rest[2 * i : 2 * i + 2] for i in range(int(count, 16))]
        pointers = rest[2 * len(words) + 1 :]
        parents = [
            pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "@i")
        ]
        keys = [f"{word.lower()}%1:{file_number}:{int(lex, 16):02d}::" for word, lex in words]
        synsets[offset] = Synset([word for word, _ in words], keys, parents)
    return synsets


def read_counts() -> dict[str, int]:
    """Sense key -> how often that sense occurs in WordNet's tagged texts."""
    lines = (WORDNET / "cntlist.rev").read_text(encoding="ascii").splitlines()
    return {key: int(count) for key, _sense, count in (line.split() for line in lines)}


def read_senses() -> dict[str, list[str]]:
    """Noun -> offsets of its senses, most frequent first."""
    senses = {}
    for line in (WORDNET / "index.noun").read_text(encoding="ascii").splitlines():
        if line.startswith("  "):
            continue
        lemma, _kind, count, *rest = line.split()
        senses[lemma] = rest[-int(count) :]
    return senses


def read_plurals() -> dict[str, str]:
    """Irregular plural -> singular."""
    lines = (WORDNET / "noun.exc").read_text(encoding="ascii").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


def closure(synsets: dict[str, Synset], ids: list[str]) -> dict[str, set[int]]:
    """Offset -> ImageNet classes at or below it."""
    below: dict[str, set[int]] = defaultdict(set)
    for index, wordnet_id in enumerate(ids):
        pending = [wordnet_id[1:]]
        while pending:
            offset = pending.pop()
            if index not in below[offset]:
                below[offset].add(index)
                pending += synsets[offset].parents
    return below


def nearest_above(
    offsets: list[str], synsets: dict[str, Synset], below: dict[str, set[int]]
) -> str | None:
    """The closest sense above any of these that has classes, at most `NEAR` steps up."""
    level = offsets
    for _ in range(NEAR):
        level = [parent for offset in level for parent in synsets[offset].parents]
        found = [offset for offset in level if 0 < len(below.get(offset, ())) <= NEIGHBOURHOOD]
        if found:
            return min(found, key=lambda offset: len(below[offset]))
    return None


def read_groundings(path: Path, classes: list[str]) -> dict[str, list[tuple[int, float]]]:
    """Word -> its classes and their shares, from the entries written by hand.

    Two ImageNet classes can have one name (maillot, crane): an entry means both.

    Raises:
        SystemExit: an entry names no class, or a share lies outside 0..1.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    aliases = entries.pop("aliases")
    found = {}
    for word, shares in entries.items():
        for name, share in shares.items():
            if name not in classes or not 0 < share <= 1:
                raise SystemExit(f"{path.name}: {word}: {name} = {share}: no class, or no share")
        found[word] = [(i, shares[name]) for i, name in enumerate(classes) if name in shares]
    return found | {other: found[word] for word, others in aliases.items() for other in others}


def read_surroundings(folder: Path) -> list[str]:
    """The words of surroundings.toml, and other words for them, in alphabetical order."""
    listed = tomllib.loads((folder / "surroundings.toml").read_text(encoding="utf-8"))["words"]
    entries = tomllib.loads((folder / "groundings.toml").read_text(encoding="utf-8"))
    others = [other for word in listed for other in entries["aliases"].get(word, ())]
    return sorted({*listed, *others})


def main() -> None:
    synsets, counts, senses = read_synsets(), read_counts(), read_senses()
    info = ImageNetInfo()
    ids = [info.index_to_label_name(index) for index in range(info.num_classes())]
    classes = [synsets[i[1:]].lemmas[0].replace("_", " ") for i in ids]
    learned = tomllib.loads((TARGET / "learned.toml").read_text(encoding="utf-8"))
    classes += [f"{word} by its stamp" for word in learned]
    groundings = read_groundings(TARGET / "groundings.toml", classes)
    surroundings = read_surroundings(TARGET)
    below = closure(synsets, ids)
    words: dict[str, list[tuple[str, int]]] = {}
    orphans: dict[str, str] = {}
    for lemma, offsets in senses.items():
        spelled = lemma.replace("_", " ")
        if spelled in groundings:
            continue
        found = [o for o in offsets if 0 < len(below.get(o, ())) <= TOO_GENERAL]
        if found:
            keys = {o: k for o in found for k in synsets[o].sense_keys if k.startswith(f"{lemma}%")}
            words[spelled] = [(o, counts.get(keys.get(o, ""), 0)) for o in found]
        elif above := nearest_above(offsets, synsets, below):
            orphans[spelled] = above
    known = {*words, *groundings, *surroundings}
    singular = {many: one for many, one in read_plurals().items() if one.replace("_", " ") in known}
    write(
        "words.json.gz",
        {
            "classes": classes,
            "surroundings": surroundings,
            "groundings": dict(sorted(groundings.items())),
            "senses": {
                o: sorted(below[o]) for o in sorted({o for w in words.values() for o, _ in w})
            },
            "words": dict(sorted(words.items())),
            "singular": dict(sorted(singular.items())),
        },
    )
    write(
        "neighbours.json.gz",
        {
            "senses": {offset: sorted(below[offset]) for offset in sorted(set(orphans.values()))},
            "words": dict(sorted(orphans.items())),
        },
    )


def write(name: str, table: dict[str, object]) -> None:
    """Store a table, the same bytes for the same content."""
    path = TARGET / name
    text = json.dumps(table, separators=(",", ":")).encode("ascii")
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text, mtime=0))
    sizes = ", ".join(f"{len(value)} {key}" for key, value in table.items())
    print(f"{path.name}: {sizes}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
