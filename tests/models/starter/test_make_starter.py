"""All files of the built-in model by one command."""

from pathlib import Path

from tools.make_starter import STARTER, hashes, report, steps


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    def names() -> list[str]:
        commands = steps(tmp_path / "flickr8k", tmp_path / "u2net.whl", tmp_path)
        return [Path(each[0]).stem if each[0] != "-m" else each[2] for each in commands]

    everything = names()
    assert everything[4:6] == ["build-dataset", "pretrain"]
    (tmp_path / "data").mkdir()
    assert "build-dataset" not in names()
    (tmp_path / "run").mkdir()
    *_, training, _, _, _ = steps(tmp_path / "flickr8k", tmp_path / "u2net.whl", tmp_path)
    assert training[-2:] == ["--resume", "auto"]
    (tmp_path / "run/last.safetensors").touch()
    assert names() == [each for each in everything if each not in ("build-dataset", "pretrain")]


def test_every_step_is_a_tool_that_is_there(tmp_path: Path) -> None:
    for command in steps(tmp_path, tmp_path, tmp_path):
        assert command[0] == "-m" or Path(command[0]).is_file()


def test_files_that_changed_are_told(tmp_path: Path) -> None:
    assert {"graph.onnx", "phrases.onnx", "captions.safetensors"} <= hashes(STARTER).keys()
    before = {"a": "1" * 64, "b": "2" * 64, "d": "4" * 64}
    lines = report(before, {"a": "1" * 64, "b": "3" * 64, "c": "5" * 64}).splitlines()
    assert [line.split()[-3:] for line in lines[:1]] == [["as", "it", "was"]]
    assert [line.split()[-1] for line in lines[1:]] == ["changed", "new", "gone"]
