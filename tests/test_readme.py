"""The README says what is true of the repository."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree_paths() -> list[str]:
    """Paths of the annotated tree, from its indentation."""
    match = re.search(r"<!-- tree -->\n```\n(.*?)```", README, re.DOTALL)
    assert match is not None
    paths, folder = [], ""
    for line in match[1].splitlines():
        name = line.split()[0]
        paths.append(folder + name if line.startswith(" ") else name)
        folder = folder if line.startswith(" ") else name
    return paths


def test_everything_in_the_tree_exists() -> None:
    assert [path for path in tree_paths() if not (ROOT / path).exists()] == []


def test_every_part_of_the_library_is_in_the_tree() -> None:
    parts = {
        f"ovseg/{path.name}{'/' if path.is_dir() else ''}"
        for path in (ROOT / "ovseg").iterdir()
        if not path.name.startswith("_") and path.name not in ("py.typed", "version.py")
    }
    assert parts <= set(tree_paths())


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_paths_of_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    quoted = re.findall(r"[`(]((?:\.?\w[\w.*-]*/)+[\w.*-]*)[`)]", text)
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(quoted) > 20
    assert [path for path in {*quoted, *links} if not any(ROOT.glob(path))] == []
