"""The command line where packages are not installed."""

import subprocess
import sys
from collections.abc import Sequence

TORCH = ("torch", "timm", "transformers", "open_clip", "onnx")

# A finder in front of all others that refuses packages, as where they are not installed.
_PROGRAM = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Refusing())

from ovseg_cli.__main__ import run

code = run({arguments!r})
assert not set({packages!r}) & set(sys.modules)
sys.exit(code)
"""


def run_without(
    packages: Sequence[str], arguments: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run `ovseg` in a process that cannot import these packages."""
    program = _PROGRAM.format(packages=tuple(packages), arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
