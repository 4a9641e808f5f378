"""Files as authors released them: told apart by what they hold, and converted to ours."""

from collections.abc import Sequence
from pathlib import Path

from ovseg.locks import holding_file
from ovseg.models.aligned.talk2dino import convert_projection, is_projection
from ovseg.models.ovsegmentor.conversion import Conversion, convert_checkpoint
from ovseg.models.torch_file import read_torch_file


def convert_released(source: Path, out: Path, overrides: Sequence[str] = ()) -> Conversion:
    """Turn a released checkpoint of OVSegmentor, or a projection of Talk2DINO, into a file of ours.

    Args:
        source: the released `.pth`.
        out: the safetensors file to write.
        overrides: `model.section.key=value` for what the file does not tell, or tells wrongly.

    Raises:
        ModelError: the file is refused, damaged, or fits no model of ours.
        UsageError: the file does not tell something, it and the overrides contradict each other, or
            another run is writing `out`.
    """
    with holding_file(out):
        file = read_torch_file(source)
        if is_projection(file):
            return convert_projection(file, out, overrides)
        return convert_checkpoint(file, out, overrides)
