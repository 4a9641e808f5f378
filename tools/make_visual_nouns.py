"""Makes ovseg/data/build/visual_nouns.tsv from WordNet 3.0 (Debian package wordnet-base).

    python tools/make_visual_nouns.py /usr/share/wordnet ovseg/data/build/visual_nouns.tsv

A noun is taken for visible when its most frequent sense lies in one of the groups of `GROUPS`
and is no child of `NOT_VISIBLE`. Nouns of one first sense share their third column, so that
synonyms can be merged: the noun of that sense that is most often meant by it.
"""

import sys
from pathlib import Path

# WordNet's numbers of its lexicographer files.
GROUPS = {
    5: "animal",
    6: "artifact",
    8: "body",
    13: "food",
    17: "object",
    18: "person",
    20: "plant",
}
# Synsets whose members are of those groups and yet cannot be pointed at.
NOT_VISIBLE = {"representation", "creation", "taxonomic_group", "spiritual_being"}


def main(wordnet: Path, output: Path) -> None:
    """Write the table: noun, group, and the shared name where it is another."""
    synsets = dict(_synsets(wordnet / "data.noun"))
    firsts = dict(_first_senses(wordnet / "index.noun"))
    rows = []
    for noun, offset in sorted(firsts.items()):
        group, words, _ = synsets[offset]
        if noun in words and group in GROUPS and not _under(offset, synsets, NOT_VISIBLE):
            shared = [word for word in words if firsts.get(word) == offset]
            same = "" if shared[0] == noun else f"\t{shared[0]}"
            rows.append(f"{noun}\t{GROUPS[group]}{same}\n")
    # The file begins with its licence, each line numbered.
    licence = [line.split(maxsplit=1)[1:] for line in _lines(wordnet / "data.noun")[:29]]
    head = "".join(f"# {' '.join(line)}".rstrip() + "\n" for line in licence)
    output.write_text(
        "# Made by tools/make_visual_nouns.py from WordNet 3.0: noun, group and, for "
        "a synonym, the noun it counts as.\n# WordNet's licence:\n" + head + "".join(rows),
        encoding="utf-8",
    )
    print(f"{len(rows)} nouns")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="latin-1").splitlines()


def _synsets(path: Path) -> list[tuple[str, tuple[int, list[str], list[str]]]]:
    """Per synset: its lexicographer file, its words and the synsets directly above."""
    rows = []
    for line in _lines(path):
        if line.startswith("  "):
            continue
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        words = [word for word in fields[4 : 4 + 2 * count : 2] if _usable(word)]
        pointers = fields[5 + 2 * count :]
        above = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in "@ @i"]
        rows.append((fields[0], (int(fields[1]), words, above)))
    return rows


def _usable(word: str) -> bool:
    return word.isascii() and word.replace("-", "").isalpha() and word.islower() and len(word) > 1


def _first_senses(path: Path) -> list[tuple[str, str]]:
    rows = []
    for line in _lines(path):
        fields = line.split()
        if not line.startswith("  ") and _usable(fields[0]):
            rows.append((fields[0], fields[6 + int(fields[3])]))
    return rows


def _under(offset: str, synsets: dict, names: set[str]) -> bool:
    _, words, above = synsets[offset]
    return bool(names & set(words)) or any(_under(up, synsets, names) for up in above)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
