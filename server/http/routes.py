"""Routes of GET requests: probes, metrics, the page, and sessions or the reason for a refusal."""

import logging
from collections.abc import Collection
from http import HTTPStatus
from typing import Protocol as Interface

from websockets.http11 import Request, Response

from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.query import PATHS, SessionRequest, parse_target
from neucodec_streaming.server.auth.gate import Caller, Gate
from neucodec_streaming.server.http.pages import load_documents, load_pages, page_response
from neucodec_streaming.server.http.responses import (
    COMPARE_PATH,
    HEALTH_PATH,
    METRICS_PATH,
    READY_PATH,
    SPEECH_PATH,
    answer,
    error_response,
    method_not_allowed,
    method_of,
    not_found,
    plain,
    upgrade_required,
)
from neucodec_streaming.server.metrics import CONTENT_TYPE, Metrics
from neucodec_streaming.server.sessions.registry import Sessions
from neucodec_streaming.server.sessions.session import Session
from neucodec_streaming.server.sessions.transport import SessionHandler
from neucodec_streaming.server.settings.fields import Settings

_log = logging.getLogger(__name__)


class Served(Interface):
    """The server's interface for the routes (app.py)."""

    @property
    def registry(self) -> Sessions | None:
        """All sessions; None until the model is loaded and warm."""

    def why_not_ready(self) -> str | None:
        """Why no session can be opened now; None if one can."""

    def ready(self) -> Sessions:
        """All sessions. Raises DeviceError while none can be opened, CapacityError while the server stops."""


class Routes:
    """The routes of one server; `gate` controls access, `codecs` are those of the page's comparison."""

    def __init__(
        self, served: Served, gate: Gate, metrics: Metrics, settings: Settings, codecs: Collection[str]
    ) -> None:
        self._served = served
        self._gate = gate
        self._metrics = metrics
        self._codecs = list(codecs)
        self._max_sessions, self._max_load = settings.max_sessions, settings.max_load
        self._pages = load_pages() | load_documents() if settings.web else {}

    def answer(self, request: Request, peer: str, is_upgrade: bool) -> Response | SessionHandler | None:
        """The answer of `_answer`, readable for web pages of allowed origins, except metrics; for HEAD without body."""
        outcome = self._answer(request, peer, is_upgrade)
        if isinstance(outcome, Response):
            if request.path.partition("?")[0] != METRICS_PATH:
                outcome.headers.update(self._gate.sharing(request.headers))
            if method_of(request) == "HEAD":
                outcome.body = b""
        return outcome

    def _answer(self, request: Request, peer: str, is_upgrade: bool) -> Response | SessionHandler | None:
        """Answers probes and pages, refuses requests, and opens sessions.

        None for a session that could be opened but was requested by a bad handshake.
        """
        path = request.path.partition("?")[0]
        if path == HEALTH_PATH:
            return answer(HTTPStatus.OK, {"alive": True})
        if path == READY_PATH:
            return self._readiness()
        if path == METRICS_PATH:
            return self._measured()
        if path == SPEECH_PATH or (path == COMPARE_PATH and self._pages):
            return method_not_allowed(path, method_of(request), "POST")
        if path in self._pages:
            return page_response(self._pages[path], request)
        try:
            asked = parse_target(request.path)
            if asked is None:
                return self._not_found(path)
            caller = self._gate.check(request.headers, asked.access_token, peer)
            sessions = self._served.ready()
            if asked.kind not in sessions.model.kinds:
                return self._not_found(path)
            sessions.model.profile(asked.profile)
            if is_upgrade:
                return self._session(sessions, asked, caller)
            return _would_open(sessions, asked, caller, request)
        except StreamingError as error:
            self._metrics.refusals.labels(error.code).inc()
            return error_response(error)

    def _not_found(self, path: str) -> Response:
        sessions = self._served.registry
        return not_found(path, PATHS.values() if sessions is None else sessions.model.kinds)

    def _session(self, sessions: Sessions, asked: SessionRequest, caller: Caller) -> Session:
        """The session that `asked` resumes, or a new one. Raises as Sessions.open does."""
        session = sessions.find(asked, caller)
        if session is not None:
            session.resume(asked)
            self._metrics.resumes.labels("exact").inc()
            return session
        session = sessions.open(asked, caller)
        if asked.resume is not None:
            self._metrics.resumes.labels(session.ready.resumed).inc()
        _log.info(
            "session %s of %s opened: %s, profile %s, %s",
            *(session.ready.session, caller, asked.kind, session.ready.profile, session.ready.resumed),
            extra={"session": session.ready.session},
        )
        return session

    def _measured(self) -> Response:
        sessions = self._served.registry
        if sessions is not None:
            sessions.measure()
        return plain(HTTPStatus.OK, self._metrics.text(), CONTENT_TYPE)

    def _readiness(self) -> Response:
        why_not, sessions = self._served.why_not_ready(), self._served.registry
        body: dict[str, object] = {"ready": why_not is None, "sessions": 0 if sessions is None else sessions.count}
        body["max_sessions"] = self._max_sessions
        if why_not is not None or sessions is None:
            body["reason"] = why_not
            return answer(HTTPStatus.SERVICE_UNAVAILABLE, body)
        model = sessions.model
        body |= {"load": round(sessions.load, 3), "max_load": self._max_load}
        body |= {"model": model.name, "compare": self._codecs}
        body["profiles"] = {
            name: {
                "chunk_frames": config.chunk_frames,
                "lookahead_frames": config.lookahead_frames,
                "capacity": {kind: sessions.capacity[kind, name] for kind in model.kinds},
            }
            for name, config in model.profiles.items()
        }
        return answer(HTTPStatus.OK, body)


def _would_open(sessions: Sessions, asked: SessionRequest, caller: Caller, request: Request) -> Response | None:
    """Tells a browser why its WebSocket was refused, which it cannot see itself. Raises as Sessions.open does."""
    if sessions.find(asked, caller) is None:
        sessions.check(asked, caller)
    return None if "Upgrade" in request.headers else upgrade_required()
