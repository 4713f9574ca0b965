"""Figures of this process and of the requests that it answers, for Prometheus."""

import time
from typing import ClassVar

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """One registry per application, so that several in one process do not mix."""

    MEDIA_TYPE: ClassVar[str] = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._requests = Counter(
            "throughline_http_requests_total",
            "Requests answered",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "throughline_http_request_seconds",
            "Seconds from the request to the headers of its answer",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

    def render(self) -> bytes:
        """All figures in Prometheus' text form."""
        return generate_latest(self._registry)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Counts each request under its route's template: a path would make a new series for each id."""

        async def measured(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != ScopeType.HTTP:
                await app(scope, receive, send)
                return
            begun = time.perf_counter()

            async def count(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = scope.get("path_template", "")
                    self._requests.labels(scope["method"], route, message["status"]).inc()
                    self._seconds.labels(scope["method"], route).observe(time.perf_counter() - begun)
                await send(message)

            await app(scope, receive, count)

        return measured
