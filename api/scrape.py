"""What the figures of an API are read from, and its requests, counted."""

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

from common.scrape import Scrape
from common.store.database import Pool

if TYPE_CHECKING:
    from api.collaboration.rooms import Rooms
    from api.relay.hub import Hub

_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class ApiScrape(Scrape):
    """The figures of one application, so that several in one process do not mix."""

    def __init__(self) -> None:
        super().__init__()
        self._requests = Counter(
            "throughline_http_requests_total",
            "Requests answered",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "throughline_http_request_seconds",
            "Seconds from the request to the headers of its answer",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._streams = self.gauge("throughline_streams_open", "Responses that stream events")
        self._readers = self.gauge(
            "throughline_stream_readers", "Who follows a run: `live`, or `behind` and about to read its log", "position"
        )
        self._slowest = self.gauge(
            "throughline_stream_slowest_reader_seconds", "For how long the slowest reader has taken nothing"
        )
        self._subscriptions = self.gauge("throughline_relay_subscriptions", "Runs that Redis tells this process about")
        self._rooms = self.gauge("throughline_document_rooms", "Documents open in this process")
        self._sockets = self.gauge("throughline_document_sockets", "Connections to them")

    def show(self, pool: Pool, hub: "Hub", rooms: "Rooms") -> None:
        """From now on: this pool, these streams, these documents."""
        self.watch(pool, requests=pool)
        self._streams.set_function(lambda: len(hub.streams))
        self._readers.labels("live").set_function(lambda: hub.clients - hub.clients_behind)
        self._readers.labels("behind").set_function(lambda: hub.clients_behind)
        self._slowest.set_function(lambda: hub.slowest_reader_s)
        self._subscriptions.set_function(lambda: hub.subscriptions)
        self._rooms.set_function(lambda: len(rooms))
        self._sockets.set_function(lambda: rooms.members)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered with `status`, `seconds` after it had come."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)
