"""The HTTP API: `POST /segment`, health, figures, and a page about itself.

A request takes one of a bounded number of places before a byte of its body is read, so that memory
is bounded by `Limits` whatever comes. Images are decoded and segmented by `Worker` in one line.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from ovseg.errors import DataError, OvsegError, UsageError
from ovseg.models.interface import SegmentationModel
from ovseg.serving.answer import JSON, PNG, encoded, wanted
from ovseg.serving.at_work import Answer, Task, Worker
from ovseg.serving.batching import Batcher
from ovseg.serving.figures import TYPE, Figures
from ovseg.serving.limits import Limits
from ovseg.serving.question import Options, form_fields, read_question, told
from ovseg.version import __version__

_UNREAD_SECONDS = 5.0  # that a request's body may take which nobody wants

ABOUT = """
Segments images by any words: send one to `POST /segment`, as it is or in a form.

    curl -F image=@photo.jpg -F classes=cat,dog http://127.0.0.1:8000/segment
    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' \\
        'http://127.0.0.1:8000/segment?classes=cat,dog&format=png' > labels.png
"""


class Problem(BaseModel):
    """What is wrong, and what to do next."""

    detail: str


class Health(BaseModel):
    """Whether requests are answered, by which model, and how many are in hand."""

    status: str
    model: str
    requests: int


class Service:
    """What one application keeps from request to request."""

    def __init__(self, model: SegmentationModel, limits: Limits) -> None:
        self.limits = limits
        self.figures = Figures()
        self.model = model.card.name
        worker = Worker(model, limits, self.figures.batch.observe)
        self.line: Batcher[Task, bytes, Answer] = Batcher(worker, limits.together)
        self.taken = 0
        self._seconds = 1.0  # that a request has lately taken

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places that there are, for as long as the block takes.

        Raises:
            HTTPException: none is free (503).
        """
        if self.taken >= self.limits.requests:
            wait = math.ceil(self._seconds)
            raise HTTPException(
                503,
                f"{self.taken} requests are in hand: try again in {wait} s",
                {"Retry-After": str(wait)},
            )
        self.taken += 1
        self.figures.at_once.set(self.taken)
        began = time.monotonic()
        try:
            yield
        finally:
            self.taken -= 1
            self.figures.at_once.set(self.taken)
            took = time.monotonic() - began
            self.figures.seconds.observe(took)
            self._seconds += (took - self._seconds) / 8

    async def answer(self, request: Request, options: Options) -> Response:
        """Read, segment, encode."""
        image, options = await read_question(request, options, self.limits)
        classes = options.class_list(self.limits)
        task = Task(classes, options.threshold, options.background)
        found, doubts = await self.line.ask(task, image)
        kind = wanted(options.format, request.headers.get("accept", ""))
        content, type = await run_in_threadpool(encoded, found, doubts, kind, options.instances)
        return Response(content, media_type=type)


def service(model: SegmentationModel, limits: Limits | None = None) -> FastAPI:
    """The application, for any ASGI server with one process.

    Args:
        model: that segments.
        limits: what is taken from strangers.
    """
    state = Service(model, limits or Limits())

    @asynccontextmanager
    async def at_work(_: FastAPI) -> AsyncIterator[None]:
        line = asyncio.create_task(state.line.run())
        yield
        line.cancel()
        with suppress(asyncio.CancelledError):
            await line

    app = FastAPIOffline(
        redoc_url=None, title="ovseg", version=__version__, description=ABOUT, lifespan=at_work
    )
    _add_errors(app)
    _add_counting(app, state)
    _add_segment(app, state)
    _add_state(app, state)
    return app


def _add_segment(app: FastAPI, state: Service) -> None:
    @app.post("/segment", responses=_RESPONSES, openapi_extra=_BODY, response_class=Response)
    async def segment(request: Request, options: Annotated[Options, Query()]) -> Response:
        """Find words in an image."""
        with state.place():
            try:
                return await asyncio.wait_for(state.answer(request, options), state.limits.seconds)
            except asyncio.TimeoutError as error:
                limit = f"{state.limits.seconds:g} s"
                raise HTTPException(504, f"there was no answer within {limit}") from error


def _add_state(app: FastAPI, state: Service) -> None:
    @app.get("/health")
    async def health() -> Health:
        """Whether requests are answered."""
        return Health(status="ok", model=state.model, requests=state.taken)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(state.figures.exposed(), media_type=TYPE)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")


def _add_counting(app: FastAPI, state: Service) -> None:
    @app.middleware("http")
    async def counted(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        state.figures.requests.labels(str(response.status_code)).inc()
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _add_errors(app: FastAPI) -> None:
    """Every failure is an object with a `detail` of one line."""

    @app.exception_handler(RequestValidationError)
    async def of_options(request: Request, error: RequestValidationError) -> Response:
        await _pass_over(request)
        return JSONResponse({"detail": told(error.errors())}, 422)

    @app.exception_handler(HTTPException)
    async def of_request(request: Request, error: HTTPException) -> Response:
        await _pass_over(request)
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)

    @app.exception_handler(OvsegError)
    async def of_ours(request: Request, error: OvsegError) -> Response:
        await _pass_over(request)
        bad = isinstance(error, UsageError | DataError)
        return JSONResponse({"detail": str(error)}, 422 if bad else 500)


async def _pass_over(request: Request) -> None:
    """Let a client that is still sending finish, or it would see no answer; keep nothing of it."""

    async def drained() -> None:
        async for _ in request.stream():
            pass

    with suppress(Exception):
        await asyncio.wait_for(drained(), _UNREAD_SECONDS)


_IMAGE = {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": _IMAGE, **form_fields()},
                    "required": ["image"],
                    "additionalProperties": False,
                },
                "encoding": {"image": {"contentType": "image/*"}},
            },
            "application/octet-stream": {"schema": _IMAGE},
            "image/*": {"schema": _IMAGE},
        },
    }
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "What was found.", "content": {JSON: {}, PNG: {"schema": _IMAGE}}},
    400: {"model": Problem, "description": "No form that can be read."},
    413: {"model": Problem, "description": "The request is too large."},
    415: {"model": Problem, "description": "Neither an image nor a form."},
    422: {"model": Problem, "description": "Not an image, no classes, or another bad option."},
    503: {"model": Problem, "description": "Too many requests are in hand; see Retry-After."},
    504: {"model": Problem, "description": "No answer in time."},
}
