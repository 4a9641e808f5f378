"""Files of the repository that pages link to, taken into the site under their own paths.

A hook of MkDocs (mkdocs.yml).
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

_ABOVE = "../"
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files that lie outside of the pages' folder, and what those link to."""
    root = Path(config.config_file_path).parent
    names = [
        name.removeprefix(_ABOVE)
        for page in list(files.documentation_pages())
        for name in _LINK.findall(page.content_string)
        if name.startswith(_ABOVE)
    ]
    while names:
        name = names.pop()
        if files.get_file_from_path(name) is None and (root / name).is_file():
            files.append(File.generated(config, name, abs_src_path=str(root / name)))
            if name.endswith(".md"):
                names += linked_from(root, name)
    return files


def linked_from(root: Path, name: str) -> list[str]:
    """What a page of the repository links to, as paths in it."""
    text = (root / name).read_text(encoding="utf-8")
    return [str(PurePosixPath(name).parent / link) for link in _LINK.findall(text)]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Pages lie beside these files in the site, not below them."""
    return markdown.replace(f"]({_ABOVE}", "](")
