"""What the docs show runs as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
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
