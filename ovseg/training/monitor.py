"""What a run shows while it goes: lines of the log, trackers, overlays, scores between epochs.

Letters: G group, N patch, S side of an image, pixels.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ovseg.config.dump import content_hash, to_toml, to_values
from ovseg.data.dataset.index import PairIndex
from ovseg.data.dataset.shards import UnreadableError
from ovseg.data.images import UndecodableError, decode
from ovseg.distributed import mean_over_processes
from ovseg.files import replacing, write_text
from ovseg.models.interface import ModelCard
from ovseg.models.ovsegmentor.network import OVSegmentor
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.training.batch import Batch
from ovseg.training.faults import Faults
from ovseg.training.flops import batch_lengths, pair_cost, peak_flops
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
from ovseg.training.state import TrainState
from ovseg.training.step import normalised

_IMAGES = 6
_OPACITY = 0.5

Pixels = npt.NDArray[np.uint8]


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
        wanted = state.recipe.train.tracker if self.is_first else "none"
        values = to_values(state.recipe)
        self.tracker = Tracker(wanted, output, output.name, values)
        if self.is_first:
            write_text(output / "recipe.toml", to_toml(state.recipe))

    def count(self, parts: list[Batch]) -> None:
        """Note a step's pairs and FLOPs."""
        recipe = self.state.recipe
        for part in parts:
            cost = pair_cost(
                recipe.model,
                batch_lengths(part),
                recipe.train.freeze_text,
                recipe.loss.mask.enabled,
                len(parts),
            )
            self.meter.pairs += len(part)
            self.meter.flops += cost.total * len(part)

    def line(self, done: int) -> LogLine:
        """The line of the log after `done` steps; every process must ask for it."""
        state, meter = self.state, self.meter
        means = mean_over_processes(meter.means())
        total, contrastive, entity, mask, norm = (_finite(value) for value in means.tolist())
        seconds, assignment = meter.seconds, meter.assignment
        assert assignment is not None
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
            scale=float(state.model.scale.detach()),
            gradient_norm=norm,
            learning_rate=state.schedule(done - 1),
            images_per_second=meter.pairs * state.group.size / seconds,
            stall=meter.waited / seconds,
            mfu=meter.flops / seconds / peak if peak else None,
            memory=memory_in_use(device),
            assignment_entropy=float(assignment_entropy(assignment)),
            groups_used=float(groups_used(assignment)),
            skipped=self.faults.skipped,
            unreadable=sum(self.faults.unreadable.values()),
        )

    def write(self, line: LogLine) -> None:
        """Add a line to the log, in the first process."""
        if self.is_first:
            self._log.append(line.__dict__)
            self.tracker.log(line)
            self.observer.logged(line)

    def draw(self, done: int) -> None:
        """Draw overlays, in the first process."""
        state = self.state
        if not self.is_first or state.source.index is None:
            return
        path = self.output / "overlays" / f"step-{done:08d}.png"
        with state.aside():
            size = state.recipe.model.image.image_size
            draw_overlays(state.model, state.source.index, path, size)

    def evaluate(self, evaluate: Evaluate, done: int) -> float:
        """Score the model as it is; every process must ask for it."""
        with self.state.aside():
            score = evaluate(self._predictor(done))
        if self.is_first:
            self.tracker.score("mIoU", score, done)
            self.observer.evaluated(done, score)
        return score

    def _predictor(self, done: int) -> Predictor:
        """The model as it is, behind the interface of inference."""
        state = self.state
        key = f"{content_hash(state.recipe)}-{done}"
        card = ModelCard(f"{self.output}@{done}", "ovsegmentor", "in training", "", key)
        return Predictor(state.model, state.texts.tokenizer, card)


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None


def draw_overlays(model: OVSegmentor, index: PairIndex, path: Path, size: int) -> None:
    """Write a PNG: images above, the same with each patch in its group's colour below.

    Args:
        model: in evaluation mode.
        size: side S at which images are shown and encoded.
    """
    images = _first_images(index, size)
    if not images:
        return
    device = model.logit_scale.device
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    with torch.no_grad():
        encoded = model.encode_image(normalised(pixels))
    winner = encoded.binding.soft.argmax(dim=1).cpu().numpy()  # [B, N]
    colours = _palette(encoded.binding.soft.shape[1])
    painted = [
        _blend(image, colours[groups.reshape(encoded.grid)])
        for image, groups in zip(images, winner, strict=True)
    ]
    sheet = np.concatenate([np.concatenate(images, axis=1), np.concatenate(painted, axis=1)])
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary)


def _first_images(index: PairIndex, size: int) -> list[Pixels]:
    found: list[Pixels] = []
    for row in range(min(len(index), 4 * _IMAGES)):
        try:
            image = decode(index.image(row))
        except (UndecodableError, UnreadableError):
            continue  # the training itself counts and reports these
        found.append(np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)))
        if len(found) == _IMAGES:
            break
    return found


def _blend(image: Pixels, colours: Pixels) -> Pixels:
    side = image.shape[1], image.shape[0]
    large = cv2.resize(colours, side, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.addWeighted(image, 1 - _OPACITY, large, _OPACITY, 0))


def _palette(count: int) -> Pixels:
    """Colours evenly round the wheel, uint8 [count, 3]."""
    hue = np.linspace(0, 180, count, endpoint=False).astype(np.uint8)
    wheel = np.stack([hue, np.full_like(hue, 200), np.full_like(hue, 255)], axis=1)
    return np.asarray(cv2.cvtColor(wheel[None], cv2.COLOR_HSV2RGB)[0])
