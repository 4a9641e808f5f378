"""A page on which a photo is dropped and words are typed, made with Gradio.

It asks for nothing from elsewhere: Gradio's own reports are switched off, fonts are the system's,
and a policy in every answer has the browser refuse any other address.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from ovseg.data.class_list import ClassList
from ovseg.errors import OvsegError, UsageError
from ovseg.models.registry import load_model
from ovseg.serving.at_work import Task, Worker
from ovseg.serving.limits import Limits
from ovseg.serving.shown import problem, script, shown, style

_LOADED = 2
"""Models that are kept in memory."""
_KEPT_SECONDS = 3600  # that uploads lie about
_EXAMPLES = {"chelsea.jpg": "cat,dog", "astronaut.jpg": "person,flag", "coffee.jpg": "cup,spoon"}
_POLICY = "; ".join(
    [
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)
_WAITING = '<p class="note">What is found appears here.</p>'


class Page:
    """What the page asks for.

    Args:
        models: names or files that can be chosen.
        device: as torch names it, or `auto`.
        limits: of images and words.
    """

    def __init__(self, models: Sequence[str], device: str, limits: Limits) -> None:
        self.models = list(models)
        self.limits = limits
        self._device = device
        self._worker = lru_cache(_LOADED)(self._load)
        self._worker(self.models[0])  # what is wrong with it is told at once

    def segment(
        self, photo: str | None, words: str, steps: float, background: bool, model: str
    ) -> str:
        """HTML of what is found, or of what is wrong.

        Args:
            photo: the uploaded file.
            words: as `ovseg segment --classes` takes them, but for files.
            steps: the threshold is the model's own, its odds doubled so often.
            background: whether pixels may belong to none of the words.
            model: one of the models.
        """
        try:
            return self._segmented(photo, words, steps, background, model)
        except OvsegError as error:
            return problem(str(error))

    def _segmented(
        self, photo: str | None, words: str, steps: float, background: bool, model: str
    ) -> str:
        if photo is None:
            raise UsageError("drop a photo first, or take one")
        if model not in self.models:
            raise UsageError(f"{model} is not one of the models here")
        classes = ClassList.of(words.split(","))
        if len(classes.phrases) > self.limits.phrases:
            raise UsageError(f"more than {self.limits.phrases} words: ask for fewer at once")
        worker = self._worker(model)
        odds, other = worker.model.threshold * 2.0**steps, 1 - worker.model.threshold
        threshold = odds / (odds + other) if background else None
        (answer,) = worker(Task(classes, threshold, background), [Path(photo).read_bytes()])
        if isinstance(answer, Exception):
            raise answer
        return shown(*answer, Path(photo).stem)

    def _load(self, model: str) -> Worker:
        return Worker(load_model(model, self._device), self.limits)


def demo(models: Sequence[str], device: str = "auto", limits: Limits | None = None) -> FastAPI:
    """The application, for any ASGI server with one process.

    Args:
        models: names or files that can be chosen on the page, the first at the beginning.
        device: as torch names it, or `auto`.
        limits: what is taken from strangers.

    Raises:
        OvsegError: the first model cannot be loaded.
    """
    limits = limits or Limits()
    page = Page(models, device, limits)
    gradio = quiet_gradio()
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def kept_here(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    blocks = _blocks(gradio, page)
    blocks.queue(max_size=limits.requests, default_concurrency_limit=1)
    return gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        max_file_size=limits.body,
        ssr_mode=False,
        theme=gradio.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=style(),
    )


def quiet_gradio() -> Any:
    """Gradio, told before it is imported to report nothing to anybody."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio

    return gradio


def _blocks(gradio: Any, page: Page) -> Any:
    with gradio.Blocks(
        title="ovseg", analytics_enabled=False, delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)
    ) as blocks:
        gradio.Markdown("# Segment any class you can name")
        with gradio.Row():
            with gradio.Column(min_width=320):
                asked = _questions(gradio, page)
                button = gradio.Button("Segment", variant="primary", elem_id="segment")
            with gradio.Column(min_width=320):
                found = gradio.HTML(_WAITING, js_on_load=script(), elem_id="found")
        photo, words, steps, background, model = asked
        example = _examples(gradio, photo, words)
        gradio.on(
            [
                button.click,
                words.submit,
                photo.upload,
                steps.change,  # by keys, too
                background.input,
                model.input,
            ],
            page.segment,
            asked,
            found,
            trigger_mode="always_last",
            api_name="segment",
        )
        example.then(
            page.segment, asked, found, trigger_mode="always_last", api_visibility="private"
        )
    return blocks


def _questions(gradio: Any, page: Page) -> list[Any]:
    photo = gradio.Image(
        label="Photo", sources=["upload", "webcam", "clipboard"], image_mode=None,
        height=320, buttons=[], elem_id="photo",
    )  # fmt: skip
    photo.preprocess = _path_of  # the file as it is: there is one decoder
    words = gradio.Textbox(
        "cat,dog",
        label="Words",
        info="separated by commas; synonyms after ;",
        max_lines=4,
        elem_id="words",
    )
    with gradio.Accordion("How", open=False):
        steps = gradio.Slider(
            -6,
            6,
            0,
            step=0.5,
            label="Threshold: the model's own, its odds doubled so often",
            elem_id="steps",
        )
        background = gradio.Checkbox(True, label="Pixels may belong to none of the words")
        model = gradio.Dropdown(page.models, value=page.models[0], label="Model")
    return [photo, words, steps, background, model]


def _path_of(payload: Any) -> str | None:
    """The uploaded file; Gradio has made sure that it is one."""
    return None if payload is None else payload.path


def _examples(gradio: Any, photo: Any, words: Any) -> Any:
    """Photos with words for each; the event that has filled both in.

    Gradio's own Examples makes the photo's component anew, which then decodes by itself.
    """
    folder = files("ovseg.export.images")
    rows = []
    for name, asked in _EXAMPLES.items():
        with as_file(folder.joinpath(name)) as path:
            rows.append((str(path), asked))
    examples = gradio.Dataset(
        components=[gradio.Image(render=False)],
        samples=[[path] for path, _ in rows],
        label="Examples",
        type="index",
        layout="gallery",
        elem_id="examples",
    )
    return examples.click(
        lambda index: rows[index],
        examples,
        [photo, words],
        show_progress="hidden",
        api_visibility="private",
    )
