"""Draws which part of the code imports which, from the code itself.

    python -m tools.draw_imports            # writes docs/architecture.svg
    python -m tools.draw_imports --check    # exit code 1 where that is not what would be written

Rows are the layers of pyproject.toml's contract. An arrow that follows from others is left out:
where `a` imports `b` and `c`, and `b` imports `c`, only `a` -> `b` -> `c` is drawn. The single
modules at the bottom, which everything imports, share a box without arrows.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from xml.sax.saxutils import escape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
Edges = set[tuple[str, str]]
Place = tuple[float, float]
Places = dict[str, Place]

WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 210, 74, 26, 44, 20
LETTERS = 33  # of small print that fit into a line of a box


def main() -> None:
    """Write the picture, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args()
    rows, ground = split(layers())
    picture = draw(rows, ground, without_implied(imports(rows)))
    if options.check:
        current = PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture
        sys.exit(None if current else f"{PICTURE.name} is old: run python -m tools.draw_imports")
    PICTURE.write_text(picture, encoding="utf-8")


def layers() -> list[list[str]]:
    """The parts of every layer, the uppermost first."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = document["tool"]["importlinter"]["contracts"]
    found = next(each["layers"] for each in contracts if each["type"] == "layers")
    return [[part.strip() for part in row.split("|")] for row in found]


def split(rows: list[list[str]]) -> tuple[list[list[str]], list[str]]:
    """The layers with packages, and the modules below them."""
    packages = [any((ROOT / part.replace(".", "/")).is_dir() for part in row) for row in rows]
    last = max(number for number, has in enumerate(packages) if has) + 1
    return rows[:last], [part for row in rows[last:] for part in row]


def imports(rows: list[list[str]]) -> Edges:
    """Pairs of parts of which the first imports the second."""
    parts = {part for row in rows for part in row}
    edges: Edges = set()
    for part in parts:
        for path in files_of(part):
            owners = {owner(name, parts) for name in imported(path)}
            edges |= {(part, other) for other in owners if other not in ("", part)}
    return edges


def files_of(part: str) -> list[Path]:
    path = ROOT / part.replace(".", "/")
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def owner(name: str, parts: set[str]) -> str:
    """The part that a module belongs to; an empty string for none."""
    return next((part for part in parts if f"{name}.".startswith(f"{part}.")), "")


def without_implied(edges: Edges) -> Edges:
    """The edges that do not follow from others."""
    after: dict[str, set[str]] = {}
    for start, end in edges:
        after.setdefault(start, set()).add(end)

    def reached(start: str) -> set[str]:
        beyond = after.get(start, set())
        return beyond.union(*(reached(end) for end in beyond)) if beyond else set()

    return {
        (start, end)
        for start, end in edges
        if not any(end in reached(between) for between in after[start] - {end})
    }


def draw(rows: list[list[str]], ground: list[str], edges: Edges) -> str:
    """The picture as SVG."""
    widest = max(len(row) for row in rows)
    width = widest * (WIDTH + ACROSS) - ACROSS + 2 * MARGIN
    places: Places = {}
    for number, row in enumerate(rows):
        first = (width - (len(row) - 1) * (WIDTH + ACROSS)) / 2
        for index, part in enumerate(row):
            places[part] = first + index * (WIDTH + ACROSS), MARGIN + number * (HEIGHT + DOWN)
    below = MARGIN + len(rows) * (HEIGHT + DOWN)
    names = ", ".join(part.removeprefix("ovseg.") for part in ground)
    lines = [arrow(*ends) for ends in ports(places, edges)]
    boxes = [box(part, purpose(part), WIDTH, *places[part]) for part in sorted(places)]
    boxes.append(box(names, "under everything", width - 2 * MARGIN, width / 2, below))
    return "\n".join([head(width, below + HEIGHT + MARGIN), *lines, *boxes, "</svg>", ""])


def ports(places: Places, edges: Edges) -> Iterator[tuple[Place, Place]]:
    """Where each arrow begins and ends: side by side along the edges of the boxes."""
    ends: list[dict[tuple[str, str], Place]] = [{}, {}]
    for side, down in ((0, HEIGHT), (1, 0)):
        for part, (middle, top) in places.items():
            mine = [edge for edge in edges if edge[side] == part]
            mine.sort(key=lambda edge, other=1 - side: (places[edge[other]], edge))
            for number, edge in enumerate(mine, 1):
                x = middle - WIDTH / 2 + WIDTH * number / (len(mine) + 1)
                ends[side][edge] = x, top + down
    for edge in sorted(edges):
        yield ends[0][edge], ends[1][edge]


def head(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="sans-serif">\n'
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#567"/></marker></defs>\n'
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>'
    )


def arrow(start: Place, end: Place) -> str:
    """A curve from the lower edge of one box to the upper edge of another."""
    (x, y), (to_x, to_y) = start, end
    bend = (to_y - y) / 2
    curve = f"M{x:g},{y:g} C{x:g},{y + bend:g} {to_x:g},{to_y - bend:g} {to_x:g},{to_y:g}"
    return f'<path d="{curve}" fill="none" stroke="#567" marker-end="url(#tip)"/>'


def box(name: str, purpose: str, width: float, middle: float, top: float) -> str:
    """A name, and what it is for."""
    lines = "".join(
        f'<text x="{middle:g}" y="{top + 37 + 14 * index:g}" font-size="11" fill="#345" '
        f'text-anchor="middle">{escape(line)}</text>'
        for index, line in enumerate(wrap(purpose, LETTERS)[:3])
    )
    return (
        f'<rect x="{middle - width / 2:g}" y="{top:g}" width="{width:g}" height="{HEIGHT}" rx="6" '
        f'fill="#eef3f8" stroke="#567"/><text x="{middle:g}" y="{top + 19:g}" font-size="14" '
        f'font-weight="bold" text-anchor="middle">{escape(name)}</text>{lines}'
    )


def purpose(part: str) -> str:
    path = ROOT / part.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].split(". ")[0].rstrip(".") if text else ""


if __name__ == "__main__":
    main()
