"""``/healthz``, ``/readyz`` and ``/metrics``: what a supervisor, a load balancer and monitoring ask."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from vault.web.errors import respond


class Healthz(Resource):
    """200 ``ok``: the process is alive, its reactor turns."""

    isLeaf = True

    def render_GET(self, request: Request) -> int:
        """Answer; nothing is looked at but that this runs."""
        respond(request, 200, "ok")
        return NOT_DONE_YET


class Metrics(Resource):
    """200 with figures for Prometheus: ``exposition()`` in the format ``content_type``."""

    isLeaf = True

    def __init__(self, exposition: Callable[[], bytes], content_type: str) -> None:
        super().__init__()
        self._exposition = exposition
        self._content_type = content_type

    def render_GET(self, request: Request) -> int:
        """Answer with the figures of this moment."""
        respond(request, 200, "", form=(self._content_type, self._exposition()))
        return NOT_DONE_YET


class Readyz(Resource):
    """200 ``ready``, or 503 with one line for each of ``problems()``: requests should go elsewhere for now."""

    isLeaf = True

    def __init__(self, problems: Callable[[], list[str]]) -> None:
        super().__init__()
        self._problems = problems

    def render_GET(self, request: Request) -> int:
        """Answer from the problems of this moment."""
        problems = self._problems()
        if problems:
            respond(request, 503, "\n".join(problems), retry_after=5.0)
        else:
            respond(request, 200, "ready")
        return NOT_DONE_YET
