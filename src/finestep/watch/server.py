"""The server of the live page: the report of each study, its news as server-sent events, and commands for who has the token."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from finestep.errors import FinestepError
from finestep.language.catalogue import translations
from finestep.report.view import ReportView
from finestep.studies.status import studies_in
from finestep.studies.steer import steer
from finestep.watch.pages import list_page, study_page
from finestep.watch.study import LiveStudy, as_text

LOOK_EVERY_S = 0.4
LIST_EVERY_S = 3.0
MOST_LISTENERS = 64
MOST_COMMAND_BYTES = 4096
FRAME = "frame-ancestors 'none'"


class Watched:
    """The studies under a folder, each looked at by one thread for all who listen.

    Args:
        place: a study, or a folder that holds some.
    """

    def __init__(self, place: Path):
        self.place = place
        self._studies: dict[str, LiveStudy] = {}
        self._lock = threading.Lock()
        self._made: dict[tuple[str, bool, bool], tuple[ReportView, str, str]] = {}
        self._looked = -LIST_EVERY_S
        self.listeners = 0

    def studies(self) -> list[LiveStudy]:
        """All studies, those that have come since included."""
        with self._lock:
            if time.monotonic() - self._looked >= LIST_EVERY_S:
                self._looked = time.monotonic()
                for folder in _folders(self.place):
                    try:
                        study = LiveStudy(folder)
                    except FinestepError:
                        continue
                    self._studies.setdefault(study.id, study)
            return list(self._studies.values())

    def study(self, name: str) -> LiveStudy | None:
        """A study by its id; no path is ever taken from an address."""
        return next((study for study in self.studies() if study.id == name), None)

    def page(self, study: LiveStudy, *, can_steer: bool) -> tuple[str, str]:
        """(HTML, content security policy) of a study; made once for each state of its report."""
        (view, data), several = study.page(), len(self.studies()) > 1
        made = self._made.get((study.id, can_steer, several))
        if made is None or made[0] is not view:
            made = (view, *study_page(view, data, can_steer=can_steer, several=several, name=study.id))
            self._made[study.id, can_steer, several] = made
        return made[1], made[2]


class _Answers:
    """What each address answers with."""

    def __init__(self, watched: Watched):
        self._watched = watched

    async def home(self, request: Request) -> Response:
        studies = await run_in_threadpool(self._watched.studies)
        if len(studies) == 1:
            return RedirectResponse(f"/study/{studies[0].id}", status_code=303)
        await run_in_threadpool(_look_at_all, studies)
        text, policy = list_page([study.state for study in studies])
        return _page(text, policy)

    async def states(self, request: Request) -> Response:
        studies = await run_in_threadpool(self._watched.studies)
        await run_in_threadpool(_look_at_all, studies)
        return Response(as_text({"studies": [study.state for study in studies]}), media_type="application/json")

    def of_study(
        self, answer: Callable[[Request, LiveStudy], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An answer about the study that the address names; what goes wrong there is told as JSON."""

        async def found(request: Request) -> Response:
            study = await run_in_threadpool(self._watched.study, request.path_params["study"])
            if study is None:
                return PlainTextResponse("no such study", status_code=404)
            try:
                answered = await answer(request, study)
            except FinestepError as error:
                law = str(getattr(error, "law", error))
                told = {"error": {"kind": error.kind, "message": str(error), "law": law}, "zh": translations([law])}
                return JSONResponse(told, status_code=400)
            return answered

        return found

    async def page(self, request: Request, study: LiveStudy) -> Response:
        steers = bool(request.scope.get("finestep_can_steer"))
        text, policy = await run_in_threadpool(self._watched.page, study, can_steer=steers)
        return _page(text, policy)

    async def data(self, request: Request, study: LiveStudy) -> Response:
        return Response((await run_in_threadpool(study.page))[1], media_type="application/json")

    async def curve(self, request: Request, study: LiveStudy) -> Response:
        found = await run_in_threadpool(study.curve, int(request.path_params["trial"]))
        return (
            PlainTextResponse("no such trial", status_code=404)
            if found is None
            else Response(as_text(found), media_type="application/json")
        )

    async def events(self, request: Request, study: LiveStudy) -> Response:
        if self._watched.listeners >= MOST_LISTENERS:
            return PlainTextResponse("too many pages are open", status_code=503)
        return StreamingResponse(_news(self._watched, study), media_type="text/event-stream")

    async def commands(self, request: Request, study: LiveStudy) -> Response:
        body = await request.body()
        try:
            wanted = json.loads(body) if len(body) <= MOST_COMMAND_BYTES else None
        except ValueError:
            wanted = None
        if not isinstance(wanted, dict):
            return JSONResponse({"error": {"kind": "BadInput", "message": "no command"}}, status_code=400)
        told = await run_in_threadpool(steer, study.folder, wanted, wait_s=2.0)
        return JSONResponse({**told, "zh": translations([told["said"]])})


def application(place: Path) -> Starlette:
    """The pages of the studies at a place; who may ask is the guard's affair."""
    answers = _Answers(Watched(place))
    of_study = answers.of_study
    return Starlette(
        routes=[
            Route("/", answers.home),
            Route("/studies", answers.states),
            Route("/study/{study:str}", of_study(answers.page)),
            Route("/study/{study:str}/data", of_study(answers.data)),
            Route("/study/{study:str}/events", of_study(answers.events)),
            Route("/study/{study:str}/curve/{trial:int}", of_study(answers.curve)),
            Route("/study/{study:str}/commands", of_study(answers.commands), methods=["POST"]),
        ]
    )


async def _news(watched: Watched, study: LiveStudy) -> AsyncIterator[str]:
    """What is new, as server-sent events: `state` of the study, `points` of running trials; a page asks for the rest itself."""
    sent: dict[int, int] = {}
    last = ""
    watched.listeners += 1
    try:
        yield "retry: 2000\n\n"
        while True:
            await run_in_threadpool(study.look)
            points = study.points(sent)
            sent = study.counts()
            if points:
                yield f"event: points\ndata: {as_text({str(key): value for key, value in points.items()})}\n\n"
            state = as_text(study.state)
            if state != last:
                last = state
                yield f"event: state\ndata: {state}\n\n"
            else:
                yield ": still here\n\n"
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        watched.listeners -= 1


def _look_at_all(studies: list[LiveStudy]) -> None:
    for study in studies:
        study.look()


def _folders(place: Path) -> list[Path]:
    try:
        return list(studies_in(place))
    except FinestepError:
        return []


def _page(text: str, policy: str) -> Response:
    headers = {"content-security-policy": f"{policy}; {FRAME}"}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)
