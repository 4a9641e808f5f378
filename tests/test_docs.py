"""What the docs show runs as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.pages import PAGES, blocks, inline

MADE = ROOT / "tests" / "compatibility" / "made"


def snippet(page: str, mark: str) -> str:
    """The code behind a mark on a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- {mark} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_an_export_runs_without_ovseg(tmp_path: Path) -> None:
    """In a process that cannot import it, with the labels that it gives."""
    pytest.importorskip("tokenizers")
    code = snippet("export.md", "without ovseg")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    shutil.copytree(MADE / "onnx", tmp_path / "deployed")
    photo = Image.open(MADE / "scene.png").convert("RGB").resize((672, 448))
    photo.save(tmp_path / "photo.png")
    code = code.replace("photo.jpg", "photo.png")  # without loss, for the comparison
    program = f"import sys; sys.modules['ovseg'] = None\n{code}\nnp.save('labels.npy', labels)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    from ovseg.inference.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(tmp_path / "deployed")
    wanted = segmenter.segment(tmp_path / "photo.png", ["cat", "dog"], window="none").labels
    labels = np.load(tmp_path / "labels.npy")
    assert labels.shape == wanted.shape
    assert (labels == wanted).mean() > 0.99
    assert len(np.unique(wanted)) > 1, "or nothing was compared"


def known(name: str) -> bool:
    """Whether a dotted name is a module of the library, or in one; imports nothing."""
    module, rest = ROOT / "ovseg", name.split(".")[1:]
    while rest and (module / rest[0]).is_dir():
        module, rest = module / rest[0], rest[1:]
    if rest and (module / f"{rest[0]}.py").is_file():
        module, rest = module / f"{rest[0]}.py", rest[1:]
    file = module / "__init__.py" if module.is_dir() else module
    return not rest or re.search(rf"\b{rest[0]}\b", file.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_names_what_there_is(page: Path) -> None:
    code = [block.text for block in blocks(page) if block.language == "python"]
    for text in code:
        compile(text, str(page), "exec")
    texts = code if page.name == "moved.md" else [*code, *inline(page)]
    names = {name for text in texts for name in re.findall(r"(?<![\w/.-])ovseg(?:\.\w+)+", text)}
    assert [name for name in names if not known(name)] == []


def test_a_name_that_is_gone_is_found() -> None:
    assert known("ovseg.segment") and known("ovseg.training.step.TrainingStep.forward")
    assert not known("ovseg.zeroshot") and not known("ovseg.training.step.Trainer")
