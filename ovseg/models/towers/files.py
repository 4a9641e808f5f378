"""The files of caption-trained models: fetched where that is allowed, or found in a folder.

What is fetched is announced with its size, resumed where it broke off, and compared with what its
source promised (`ovseg.download`).
"""

import logging
from pathlib import Path

from ovseg import files
from ovseg.download import cached_file, fetch, hub_file
from ovseg.errors import ModelError
from ovseg.models.towers.names import BACKBONE, HUB_FILES, TOWERS, TowerName, TowerSource

_log = logging.getLogger(__name__)


def tower_files(asked: TowerName) -> list[Path]:
    """Every file of a model, here and whole; the weights that tell it apart are the last.

    Raises:
        DownloadError: one is not here and cannot be fetched.
        ModelError: a folder lacks one, or people have to ask for one.
    """
    if asked.folder is not None:
        return _in_folder(asked)
    source = TOWERS[asked.name]
    by_hand = f"then name the folder of all files: --model {source.family}:/path/to/folder"
    here = [hub_file(source.repository, each, by_hand) for each in HUB_FILES[source.family]]
    return here + [_further(asked.name, source, name) for name in source.files]


def weights_here(name: str) -> Path | None:
    """The weights of a name of `TOWERS`, if every file of it is on this machine."""
    source = TOWERS[name]
    of_hub = [cached_file(source.repository, each) for each in HUB_FILES[source.family]]
    further = [place_of(name, each) for each in source.files]
    whole = all(each is not None for each in of_hub) and all(each.is_file() for each in further)
    return [*of_hub, *further][-1] if whole else None


def place_of(name: str, file: str) -> Path:
    """Where a file lies that is not of the hub."""
    return files.cache_folder() / "models" / name / file


def _further(name: str, source: TowerSource, file: str) -> Path:
    path = place_of(name, file)
    if path.is_file():
        return path
    if file not in source.addresses:
        raise ModelError(
            f"{name} is given on request: ask for {file} at {source.terms} and put it at {path}; "
            f"its backbone comes from https://huggingface.co/{source.repository}"
        )
    _log.warning("downloading %s", source.addresses[file])
    return fetch(source.addresses[file], path)


def _in_folder(asked: TowerName) -> list[Path]:
    """The same files in a folder; those of dino.txt by how their names end."""
    folder = asked.folder
    assert folder is not None
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder (--model {asked.family}:FOLDER)")
    if asked.family == "dinotxt":
        parts = sorted(folder.glob("*dinotxt*.pth"))
        if not parts or not (folder / BACKBONE).is_file():
            raise ModelError(f"{folder}: there is no {BACKBONE}, or no *dinotxt*.pth, in it")
        return [folder / BACKBONE, *parts]
    found = []
    for names in HUB_FILES[asked.family]:
        there = next((folder / name for name in names if (folder / name).is_file()), None)
        if there is None:
            raise ModelError(f"{folder}: there is no {' or '.join(names)} in it")
        found.append(there)
    return found
