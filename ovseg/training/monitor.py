"""What a run shows while it goes: lines of the log, trackers, overlays, scores between epochs."""

from pathlib import Path
from typing import Any

import torch

from ovseg.config.dump import content_hash, to_toml, to_values
from ovseg.distributed import mean_over_processes
from ovseg.files import write_text
from ovseg.models.interface import ModelCard, SegmentationModel
from ovseg.training.faults import Faults
from ovseg.training.flops import peak_flops
from ovseg.training.log import (
    Evaluate,
    JsonLines,
    LogLine,
    Meter,
    Observer,
    Tracker,
    assignment_entropy,
    groups_used,
    memory_in_use,
)
from ovseg.training.page import RunPage
from ovseg.training.state import TrainState


class Monitor:
    """Measures and shows a run; all processes have one, and only the first one's is seen.

    Args:
        output: the run's folder.
        first: steps that were done before.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(
        self, state: TrainState, output: Path, faults: Faults, observer: Observer, first: int
    ) -> None:
        self.state = state
        self.output = output
        self.faults = faults
        self.observer = observer
        self.meter = Meter()
        rank = state.group.rank
        self.is_first = rank == 0
        self._log = JsonLines(output / f"log{f'.{rank}' if rank else ''}.jsonl", first)
        self._scores = JsonLines(output / f"scores{f'.{rank}' if rank else ''}.jsonl", first)
        wanted = state.recipe.train.tracker if self.is_first else "none"
        values = to_values(state.recipe)
        self.tracker = Tracker(wanted, output, output.name, values)
        self._page = RunPage(output)
        if self.is_first:
            write_text(output / "recipe.toml", to_toml(state.recipe))

    def count(self, parts: list[Any]) -> None:
        """Note a step's pairs and FLOPs."""
        for part in parts:
            self.meter.pairs += len(part)
            self.meter.flops += self.state.trainee.flops(part, len(parts)) * len(part)

    def line(self, done: int) -> LogLine:
        """The line of the log after `done` steps; every process must ask for it."""
        state, meter = self.state, self.meter
        means = mean_over_processes(meter.means())
        total, contrastive, entity, mask, *others, norm = map(_finite, means.tolist())
        captions, words, structure = others
        seconds, soft = meter.seconds, meter.assignment
        device = state.device
        peak = peak_flops(torch.cuda.get_device_name(device) if device.type == "cuda" else "")
        self.meter = Meter()
        return LogLine(
            step=done,
            epoch=done / state.epoch_steps,
            loss=total,
            contrastive=contrastive,
            entity=entity,
            mask=mask,
            scale=float(state.trainee.scale.detach()),
            gradient_norm=norm,
            learning_rate=state.schedule(done - 1),
            images_per_second=meter.pairs * state.group.size / seconds,
            stall=meter.waited / seconds,
            mfu=meter.flops / seconds / peak if peak and meter.flops else None,
            memory=memory_in_use(device),
            assignment_entropy=None if soft is None else float(assignment_entropy(soft)),
            groups_used=None if soft is None else float(groups_used(soft)),
            skipped=self.faults.skipped,
            unreadable=sum(self.faults.unreadable.values()),
            captions=captions,
            words=words,
            structure=structure,
        )

    def write(self, line: LogLine) -> None:
        """Add a line to the log, in the first process."""
        if self.is_first:
            self._log.append(line.__dict__)
            self._page.refresh()
            self.tracker.log(line)
            self.observer.logged(line)

    def draw(self, done: int) -> None:
        """Draw overlays, in the first process."""
        state = self.state
        if not self.is_first or state.source.index is None:
            return
        path = self.output / "overlays" / f"step-{done:08d}.png"
        with state.aside():
            state.trainee.draw(path)

    def evaluate(self, evaluate: Evaluate, done: int) -> float:
        """Score the model as it is by the first of its scores; every process must ask for it."""
        with self.state.aside():
            scores = evaluate(self._predictor(done))
        if self.is_first:
            for name, value in scores.items():
                self.tracker.score(name, value, done)
            self._scores.append({"step": done, **scores})
            self._page.refresh()
            self.observer.scored(done, scores)
            self.observer.evaluated(done, next(iter(scores.values())))
        return next(iter(scores.values()))

    def close(self) -> None:
        """Write out what is pending."""
        self.tracker.close()
        if self.is_first:
            self._page.refresh(at_once=True)

    def _predictor(self, done: int) -> SegmentationModel:
        """The model as it is, behind the interface of inference."""
        state = self.state
        key = f"{content_hash(state.recipe)}-{done}"
        kind = "ovsegmentor" if state.recipe.model.aligned is None else "aligned"
        card = ModelCard(f"{self.output}@{done}", kind, "in training", "", key)
        return state.trainee.predictor(card)


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
