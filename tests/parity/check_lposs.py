"""Compare label propagation with what the released LPOSS computed.

    python tests/parity/check_lposs.py tests/parity/data/lposs-a

The argument is a prefix: PREFIX.json says every size and constant, PREFIX.safetensors holds inputs
(`in.*`) and what came of them (`out.*`). One row is printed per quantity and precision: its name,
the largest absolute difference, the tolerance, and whether it passes. The exit code is 1 if a row
does not. With --json they are printed as JSON.

Weights and cosines may differ by 1e-5. What is solved for may differ by 2e-5 of its maximum in
float64 and by 1e-3 in float32, since conjugate gradients are cut short. Label maps may differ in
five pixels, those of a margin below 1e-4.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate, normalize

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone, of which `tests` is a package

from ovseg.inference.derived_maps import MergedMaps, RefinedMaps, ResizedMaps, best_of_classes
from ovseg.inference.encode import EncodedView
from ovseg.inference.labels import strongest
from ovseg.inference.maps import PositionMaps, ScoreMaps
from ovseg.inference.refine.patch_graph import PatchGraph
from ovseg.inference.refine.pixel_graph import PixelGraph
from ovseg.inference.refine.propagation import LabelPropagation
from ovseg.inference.refinement import patch_places
from ovseg.inference.views import Box, Padding, View, boxes_of
from ovseg.models.interface import GroupedImage
from tests.parity.rows import Row, run_check

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
EXACT, LABELS = 1e-5, 5
SOLVED = {"float32": 1e-3, "float64": 2e-5}  # shares of a tensor's maximum


@dataclass(frozen=True)
class Fixture:
    """A fixture, with floats in the precision to compare in."""

    facts: dict[str, Any]
    values: dict[str, Tensor]
    precision: str

    @classmethod
    def read(cls, prefix: Path, precision: str) -> "Fixture":
        facts = json.loads(prefix.with_name(f"{prefix.name}.json").read_text(encoding="utf-8"))
        return cls(facts, load_file(prefix.with_name(f"{prefix.name}.safetensors")), precision)

    @property
    def outputs(self) -> list[str]:
        return [name.removeprefix("out.") for name in self.values if name.startswith("out.")]

    def get(self, name: str) -> Tensor:
        return self.values[name].to(PRECISIONS[self.precision])

    def settings(self, neighbours: int | None = None) -> LabelPropagation:
        """The constants; those of the solver stand in its description."""
        p, solver = self.facts["parameters"], self.facts["solver"]["method"]
        steps = re.search(r"at most (\d+) iterations", solver)
        enough = re.search(r"residual <= ([\d.e-]+)", solver)
        assert steps and enough, solver
        settings = LabelPropagation(
            neighbours=neighbours or p["k"],
            gamma=p["gamma"],
            sigma=p["sigma"],
            power=p["pix_dist_pow"],
            tau=p["tau"],
            diameter=p["r"],
            alpha=p["alpha"],
            iterations=int(steps[1]),
            tolerance=float(enough[1]),
        )
        assert settings.reach == p["neighbourhood_radius"]
        return settings

    @cached_property
    def pixels(self) -> PixelGraph:
        """Colours are compared in float32 at either precision, as the released code does."""
        image = self.values["in.image"].float().permute(2, 0, 1) / 255
        return PixelGraph.of(image, self.settings())

    @property
    def classes(self) -> tuple[int, ...]:
        """Class of each column: the first ones are all of the background."""
        p = self.facts["parameters"]
        of_background = p["expanded_classes"] - p["classes"] + 1
        return (0,) * of_background + tuple(range(1, p["classes"]))

    def row(self, covers: str, ours: Tensor, tolerance: float, *, share: bool = False) -> Row:
        """Compare a tensor; with `share` the tolerance is one of the reference's maximum."""
        reference = self.values[f"out.{covers}"].double()
        if reference.shape != ours.shape:
            return Row(covers, self.precision, float("nan"), 0.0)
        difference = float((ours.double() - reference).abs().max())
        return Row(
            covers,
            self.precision,
            difference,
            tolerance * (float(reference.abs().max()) if share else 1.0),
        )

    def solved(self, covers: str, ours: Tensor) -> Row:
        return self.row(covers, ours, SOLVED[self.precision], share=True)

    def labels(self, covers: str, ours: Tensor) -> Row:
        wrong = float((ours != self.values[f"out.{covers}"]).sum())
        return Row(covers, self.precision, wrong, LABELS)


@dataclass(frozen=True)
class Mode:
    """The image in windows, or whole."""

    fixture: Fixture
    name: str

    @cached_property
    def view(self) -> View:
        p, features = self.fixture.facts["parameters"], self.fixture.values[f"in.{self.name}.vfm"]
        height, width = p["image"]
        if self.name == "window":
            tops = boxes_of(height, width, p["crop"], p["stride"][0])
            lefts = boxes_of(height, width, p["crop"], p["stride"][1])
            rows = sorted({box.top for box in tops})
            columns = sorted({box.left for box in lefts})
            boxes = [Box(r, c, tops[0].height, tops[0].width) for r in rows for c in columns]
        else:
            boxes = [Box(0, 0, height, width)]
        padded = tuple(count * p["vit_patch_size"] for count in features.shape[1:3])
        return View(np.zeros((3, height, width), np.float32), tuple(boxes), Padding(padded))

    @property
    def direct(self) -> bool:
        return self.name == "whole"

    @cached_property
    def graph(self) -> PatchGraph:
        features = normalize(self.fixture.get(f"in.{self.name}.vfm"), dim=-1)
        places = patch_places(self.view, tuple(features.shape[1:3]))
        return PatchGraph.of(features.flatten(0, 2), places, self.fixture.settings())

    @cached_property
    def similarities(self) -> Tensor:
        """Cosines of patches, on the grid of the features, and words: [nodes, columns]."""
        clip = self.fixture.get(f"in.{self.name}.clip").permute(0, 3, 1, 2)
        grid = self.fixture.values[f"in.{self.name}.vfm"].shape[1:3]
        if clip.shape[2:] != grid:
            clip = interpolate(clip, tuple(grid), mode="bilinear", align_corners=False)
        nodes = normalize(clip.permute(0, 2, 3, 1), dim=-1).flatten(0, 2)
        return nodes @ self.fixture.get("in.text").T

    @cached_property
    def spread(self) -> Tensor:
        return self.graph.propagate(self.similarities)

    def at(self, shape: tuple[int, int]) -> PositionMaps:
        """What was spread over the patches, at the pixels of the network's or another image."""
        grid = tuple(self.fixture.values[f"in.{self.name}.vfm"].shape[1:3])
        scores = self.spread.reshape(len(self.view.boxes), -1, self.spread.shape[-1])
        encoded = EncodedView(GroupedImage(scores, grid), self.view)
        return PositionMaps.of(scores, encoded, shape, direct=self.direct)

    @cached_property
    def original(self) -> tuple[int, int]:
        height, width = self.fixture.facts["parameters"]["original"]
        return height, width

    @cached_property
    def maps(self) -> ScoreMaps:
        """Scores of the classes at the original size, without the step on pixels."""
        if not self.direct:
            return ResizedMaps(
                MergedMaps(self.at(self.view.shape), self.fixture.classes), self.original
            )
        grid = self.fixture.values[f"in.{self.name}.vfm"].shape[1:3]
        merged = best_of_classes(self.spread, self.fixture.classes)
        return PositionMaps.on_grid(merged.reshape(*grid, -1), self.original)

    @cached_property
    def maps_plus(self) -> ScoreMaps:
        refined = RefinedMaps(self.at(self.view.shape), _Unscaled(self.fixture.pixels))
        return ResizedMaps(MergedMaps(refined, self.fixture.classes), self.original)

    def rows(self) -> Iterator[Row]:
        f, name = self.fixture, self.name
        nodes = torch.eye(len(self.spread), dtype=self.spread.dtype)
        yield f.row(f"{name}.Wn", self.graph.normalised(nodes), EXACT)
        yield f.row(f"{name}.similarities", self.similarities, EXACT)
        yield f.solved(f"{name}.lp", self.spread)
        yield from self._scores(name, self.maps)
        network = self.at(self.view.shape).piece(slice(None))
        yield from self._thinned("pixel_input", network)
        yield from self._thinned("pixel_lp", f.pixels.propagate(network))
        yield f.row(f"{name}.pixel_Wn_rows", self._pixel_rows(), EXACT)
        yield from self._scores(f"{name}_plus", self.maps_plus)

    def _scores(self, name: str, maps: ScoreMaps) -> Iterator[Row]:
        yield self.fixture.solved(f"{name}.scores", maps.piece(slice(None)))
        yield self.fixture.labels(f"{name}.labels", strongest(maps)[1])

    def _thinned(self, what: str, maps: Tensor) -> Iterator[Row]:
        """Stored of every so many rows and columns, as the name says, maps last."""
        for name in self.fixture.outputs:
            if found := re.fullmatch(rf"{self.name}\.{what}(?:_sub(\d+))?", name):
                step = int(found[1] or 1)
                yield self.fixture.solved(name, maps.permute(1, 2, 0)[::step, ::step])

    def _pixel_rows(self) -> Tensor:
        """What some pixels take from every other: rows of the normalised weights, [n, H, W]."""
        places = self.fixture.facts["details"][f"{self.name}.pixel_Wn_rows"]
        height, width = self.view.shape
        ones = torch.zeros(height * width, len(places), dtype=self.spread.dtype)
        for column, (row, at) in enumerate(places):
            ones[row * width + at, column] = 1
        return self.fixture.pixels.normalised(ones).T.reshape(-1, height, width)  # symmetric


@dataclass(frozen=True)
class _Unscaled:
    """The step on pixels without the factor that ovseg keeps its scores in size by."""

    graph: PixelGraph

    keeps_range = False

    @property
    def shape(self) -> tuple[int, int]:
        return self.graph.shape

    def refine(self, maps: Tensor) -> Tensor:
        return self.graph.propagate(maps)


def compare(prefix: Path) -> Iterator[Row]:
    """Every quantity of the fixture, in float32 and float64."""
    for precision in PRECISIONS:
        with torch.inference_mode():
            yield from _compare(Fixture.read(prefix, precision))


def _compare(fixture: Fixture) -> Iterator[Row]:
    for name in fixture.outputs:
        if found := re.fullmatch(r"lab(?:_sub(\d+))?", name):
            step = int(found[1] or 1)
            yield fixture.row(name, fixture.pixels.colours.permute(1, 2, 0)[::step, ::step], EXACT)
    yield from _small_graph(fixture)
    for name in ("window", "whole"):
        if f"in.{name}.vfm" in fixture.values:
            yield from Mode(fixture, name).rows()


def _small_graph(fixture: Fixture) -> Iterator[Row]:
    """A corner of the whole image with another number of neighbours."""
    p = fixture.facts["parameters"]
    for name in fixture.outputs:
        if found := re.fullmatch(r"(small\d+)\.Wn", name):
            facts = p[found[1]]
            rows, columns = facts["grid"]
            features = normalize(fixture.get("in.whole.vfm")[0, :rows, :columns], dim=-1)
            at = np.indices((rows, columns)).reshape(2, -1).T * float(p["vit_patch_size"])
            graph = PatchGraph.of(features.flatten(0, 1), at, fixture.settings(facts["k"]))
            nodes = torch.eye(rows * columns, dtype=features.dtype)
            yield fixture.row(name, graph.normalised(nodes), EXACT)


def main(arguments: list[str]) -> int:
    """Print the rows of one fixture; 0 if all pass, 1 if one does not, 2 if called wrongly."""
    return run_check(arguments, __doc__, compare)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
