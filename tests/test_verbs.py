"""`help(ovseg)` lists what there is, and importing the package costs nothing."""

import subprocess
import sys

import ovseg

VERBS = ("segment", "segment_files", "evaluate", "pretrain", "build_dataset", "export_model")


def test_every_name_can_be_found_and_had() -> None:
    assert set(ovseg.__all__) <= set(dir(ovseg))
    for name in ovseg.__all__:
        assert getattr(ovseg, name)
    for verb in VERBS:
        assert verb in ovseg.__all__ and getattr(ovseg, verb).__doc__


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, ovseg; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
