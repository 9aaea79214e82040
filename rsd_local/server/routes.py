"""The endpoints."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rsd_local.errors import QueueFull, RSDError
from rsd_local.server import VERSION, openapi
from rsd_local.server.answers import Answer
from rsd_local.server.errors import (
    BodyTooLarge,
    BodyTooSlow,
    Loading,
    NoSuchModel,
    NoSuchRoute,
    Stopping,
    WrongMethod,
    code_of,
)
from rsd_local.server.exchange import Exchange, Patience, failure_response, to_json
from rsd_local.server.metrics import CONTENT_TYPE, Metrics
from rsd_local.server.models import Job, Models, Place
from rsd_local.server.page import page_routes
from rsd_local.server.parse import Asked, read_chat, read_completion, read_json
from rsd_local.server.served import Served
from rsd_local.server.usage import Account
from rsd_local.server.waiting import Waiting

MOST_BYTES = 8 << 20
"""Of a body."""
_READ_IN_LOOP = 1 << 16  # bytes of JSON that are read sooner than a thread is called
_LONGEST_WAIT = 60  # seconds that a client is told to wait at most
_FADE = 0.8


class Service:
    """What the endpoints work with.

    Args:
        models: what is served.
        patience: the time limits.
    """

    def __init__(self, models: Models, patience: Patience) -> None:
        self.models, self.patience = models, patience
        self.exchanges: set[Exchange] = set()
        self._parallel = 1  # of the trio that was asked last
        self.started = int(time.time())
        self.metrics = Metrics(self.running, self.waiting, lambda: models.ready)
        for served in models.trios.served.values():
            self.metrics.watch(served)
        self._seconds = 1.0  # of an answer, faded

    def running(self) -> int:
        """How many answers are being written."""
        return sum(exchange.run.position == 0 for exchange in self.exchanges)

    def waiting(self) -> int:
        """How many answers wait in the queue of their trio, or for it to be loaded."""
        return self.models.trios.waiting + sum(exchange.run.position > 0 for exchange in self.exchanges)

    def end_all(self) -> None:
        """End all answers that are being written."""
        for exchange in list(self.exchanges):
            exchange.stop(Stopping("the server has stopped"))

    def failed(self, request: Request, error: RSDError) -> Response:
        """The response that says an error."""
        self.metrics.error(code_of(error))
        request.state.facts["error"] = code_of(error)
        return failure_response(error, self._retry_after() if isinstance(error, QueueFull) else 1)

    async def respond(self, request: Request, asked: Asked, when: float) -> Response:
        """The response to a request: its answer, at once or when its trio is loaded.

        Raises:
            NoSuchModel, BadField, QuestionRefused: it cannot be answered.
            QueueFull: too many wait already.
            Stopping: no new work is taken.
        """
        place = self.models.enter(asked)

        async def begin(patience: Patience) -> Exchange:
            try:
                return self.answer(request, await asyncio.to_thread(self.models.job, asked, place), when, place, patience)
            except BaseException:
                place.leave()
                raise

        def ended(error: RSDError | None) -> None:
            if error is None:
                self.metrics.gone()
            else:
                self.metrics.error(code_of(error))
                request.state.facts["error"] = code_of(error)

        return await begin(self.patience) if place.granted.done() else Waiting(place, begin, asked.stream, self.patience, ended)

    def answer(self, request: Request, job: Job, asked: float, place: Place, patience: Patience) -> Exchange:
        """Begin an answer, whose end gives its place back.

        Raises:
            QuestionRefused: the trio cannot take the question.
            QueueFull: too many wait already.
            Stopping: no new work is taken.
        """
        answer, recorder = Answer(job, uuid.uuid4().hex, asked), job.recorder
        try:
            run = job.reasoner.run(job.prompt, job.params, strategy=job.strategy)
        except RSDError as error:
            if recorder is not None:
                recorder.ended(answer.id, job, answer.times, None, error)
            raise
        facts = request.state.facts
        facts |= {"model": job.model, "strategy": job.strategy, "stream": job.asked.stream}

        self._parallel = job.reasoner.config.parallel

        def ended(account: Account | None, error: RSDError | None) -> None:
            self.exchanges.discard(exchange)
            if recorder is not None:
                recorder.ended(answer.id, job, answer.times, account, error)
            place.leave()
            if account is not None:
                self.metrics.answer(account)
                self._seconds = _FADE * self._seconds + (1 - _FADE) * max(0.0, account.times.end - account.times.admitted)
                facts.update(reason=account.finished.reason, prompt_tokens=account.writer.opening_tokens)
                facts.update(cached_tokens=account.writer.cached_tokens, completion_tokens=account.completion_tokens)
            if error is not None:
                self.metrics.error(code_of(error))
                facts["error"] = code_of(error)
            elif account is None or account.finished.reason == "cancelled":
                self.metrics.gone()

        exchange = Exchange(run, answer, job.asked.stream, patience, ended)
        self.exchanges.add(exchange)
        return exchange

    def _retry_after(self) -> int:
        """Seconds in which a place in the queue may be free: as long as an answer took of late, by those that are written at once."""
        return min(_LONGEST_WAIT, max(1, math.ceil(self._seconds / self._parallel)))


def routes(service: Service) -> list[BaseRoute]:
    """All endpoints."""

    async def health(request: Request) -> Response:
        models = service.models
        if models.ready:
            return _json({"status": "ok"})
        error: RSDError = Stopping("the server is stopping") if models.stopping else Loading("the models are being loaded")
        return failure_response(error)

    async def list_models(request: Request) -> Response:
        return _json({"object": "list", "data": [_model(service, name) for name in service.models.names()]})

    async def one_model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in service.models.names():
            raise NoSuchModel(f"the model {name[:100]!r} is not served here", "model")
        return _json(_model(service, name))

    async def props(request: Request) -> Response:
        return _json(await asyncio.to_thread(_props, service.models.find(request.query_params.get("model", ""))))

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def description(request: Request) -> Response:
        return _json(openapi.document())

    return [
        Route("/v1/chat/completions", _answering(service, read_chat), methods=["POST"]),
        Route("/v1/completions", _answering(service, read_completion), methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", one_model, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
        Route("/props", props, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/openapi.json", description, methods=["GET"]),
        *page_routes(),
    ]


def as_error(error: HTTPException) -> RSDError:
    """What the router could not find, as an error of ours."""
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return WrongMethod("this address does not have this method", allow, hint="/openapi.json has what there is")
    return NoSuchRoute("nothing is at this address", hint="/openapi.json has what there is")


def _answering(service: Service, read: Callable[[dict[str, Any]], Asked]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        asked = time.perf_counter()
        service.models.trios.check()  # whoever asks too early need not send a body
        body = await _body(request, service.patience.body)
        if len(body) > _READ_IN_LOOP:
            parsed = await asyncio.to_thread(lambda: read(read_json(body)))
        else:
            parsed = read(read_json(body))
        return await service.respond(request, parsed, asked)

    return endpoint


async def _body(request: Request, seconds: float) -> bytes:
    """A request's body.

    Raises:
        BodyTooLarge: it has too many bytes.
        BodyTooSlow: it does not come.
    """
    too_large = BodyTooLarge(f"the body is larger than {MOST_BYTES >> 20} MiB")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    raise too_large
    except TimeoutError:
        raise BodyTooSlow(f"the body did not come within {seconds:g} s") from None
    except ClientDisconnect:
        raise BodyTooSlow("the client went away") from None
    return bytes(body)


def _json(content: dict[str, Any]) -> Response:
    return Response(to_json(content).encode("utf-8", "replace"), media_type="application/json")


def _model(service: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.started, "owned_by": "rsd-local"}


def _props(served: Served) -> dict[str, Any]:
    """What llama-server's ``/props`` has, and what there is to know of the trio.

    Raises:
        Loading: it is not loaded.
    """
    loaded = served.loaded
    if loaded is None:
        raise Loading(f"{served.name} is not loaded", hint="the next request to it loads it")
    trio, config, sampling = loaded.reasoner.trio, loaded.reasoner.config, loaded.params.sampling
    target = trio.engines().get("target")
    servers = trio.servers()
    return {
        "default_generation_settings": {
            "n_ctx": min(trio.draft.context, trio.target.context),
            "params": {
                "n_predict": loaded.params.limits.tokens,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repeat_penalty,
                "stop": list(loaded.params.limits.stop),
            },
        },
        "total_slots": config.parallel,
        "model_alias": served.name,
        "model_path": str(target.model.path if target is not None else servers["target"].config.url),
        "chat_template": (target.model.chat_template if target is not None else servers["target"].facts.template) or "",
        "modalities": {"vision": False, "audio": False},
        "build_info": f"rsd-local {VERSION}",
        "rsd": {
            "roles": {
                role: {"model": engine.model.path.name, "context": engine.context, "parameters": engine.model.active_params}
                for role, engine in loaded.reasoner.engines().items()
            }
            | {
                role: {"model": engine.facts.model, "url": engine.config.url, "context": engine.context, "parameters": engine.parameters}
                for role, engine in servers.items()
            },
            "strategy": config.strategy,
            "strategies": loaded.strategies(),
            "rewards": [stage.kind for stage in config.stages],
            "threshold": loaded.params.weighting.threshold,
            "queue": config.queue,
            "thinks": trio.thinks(loaded.params.thinking),
        },
    }
