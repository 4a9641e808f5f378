"""A caption-trained model by its name."""

from ovseg.models.interface import SegmentationModel
from ovseg.models.towers.files import tower_files
from ovseg.models.towers.names import TOWERS, parse_tower_name


def load_tower(name: str) -> SegmentationModel:
    """Find the files, fetching what is missing, and load them.

    Args:
        name: one for which `is_tower_name` holds.

    Raises:
        DownloadError: files are not here and cannot be fetched.
        ModelError: files do not hold what they should, or have to be asked for.
        MissingDependencyError: a library is missing or too old.
    """
    asked = parse_tower_name(name)
    found = tower_files(asked)
    if asked.family == "tipsv2":
        from ovseg.models.towers.tips import read_tips

        return read_tips(found[-1].parent, name)
    if asked.family == "groupvit":
        from ovseg.models.towers.groupvit import read_groupvit

        return read_groupvit(found[-1].parent, found[-1], name)
    from ovseg.models.towers.dinotxt_files import read_dinotxt

    backbone, *parts = found
    if asked.name:
        return read_dinotxt(f"{TOWERS[asked.name].backbone}@{backbone}", parts, name)
    third = any("dinov3" in part.name for part in parts)
    architecture = TOWERS[f"dinotxt-dinov{3 if third else 2}-l"].backbone
    return read_dinotxt(f"{architecture}@{backbone}", parts, name)
