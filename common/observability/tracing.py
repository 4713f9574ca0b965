"""Traces by OpenTelemetry, for who asks for them; else nothing of it is imported, and nothing is done.

Spans hold ids, names, counts and kinds of errors: never what people, models or tools say, nor an exception's text.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from structlog.contextvars import bind_contextvars

from common.config import ConfigError, Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

Attributes = Mapping[str, str | int | float | Sequence[str]]
Kind = Literal["internal", "server", "client", "consumer"]

_FLUSH_S = 3.0
_OFF: AbstractContextManager[None] = nullcontext()
_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def open_tracing(settings: Settings, service: str) -> None:
    """Traces from now on, if OTEL_EXPORTER_OTLP_ENDPOINT is set. Raises ConfigError where the packages are missing.

    The other OTEL_ variables are read by OpenTelemetry itself. Its global provider is left alone: libraries that find
    one there make spans of their own, of which we do not know what they hold.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but a package for it is missing ({error.name}): "
            "pip install 'throughline[tracing]'"
        ) from None
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace_with(provider)


def trace_with(provider: "TracerProvider | None") -> None:
    """Gives spans to this provider from now on; None: to nobody."""
    global _provider, _tracer
    _provider, _tracer = provider, None if provider is None else provider.get_tracer("throughline")


def close_tracing() -> None:
    """Hands on what is finished, for 3 s at most, and traces no more: a collector that is away holds up no end."""
    if _provider is not None:
        flushing = threading.Thread(target=_provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(_FLUSH_S)
    trace_with(None)


def span(
    name: str, attributes: Attributes, *, kind: Kind = "internal", traceparent: str | None = None
) -> AbstractContextManager["Span | None"]:
    """A span around what is done inside, below the current one, or the one that `traceparent` names."""
    return _OFF if _tracer is None else _current(_tracer, name, attributes, kind, traceparent)


def begin_span(name: str, attributes: Attributes, *, kind: Kind) -> "Span | None":
    """A span below the current one that somebody else ends."""
    if _tracer is None:
        return None
    from opentelemetry.trace import SpanKind

    return _tracer.start_span(name, kind=SpanKind[kind.upper()], attributes=dict(attributes))


def note_failure(of: "Span | None", kind: str) -> None:
    """Says that it failed, and how, in a word."""
    if of is not None:
        from opentelemetry.trace import StatusCode

        of.set_attribute("error.type", kind)
        of.set_status(StatusCode.ERROR)


def current_traceparent() -> str | None:
    """What names the current span in W3C's form; None without one."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def _current(
    tracer: "Tracer", name: str, attributes: Attributes, kind: Kind, traceparent: str | None
) -> "Iterator[Span]":
    from opentelemetry.trace import SpanKind, format_trace_id
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = None if traceparent is None else TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    with tracer.start_as_current_span(
        name,
        context=parent,
        kind=SpanKind[kind.upper()],
        attributes=dict(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        if kind in ("server", "consumer"):
            bind_contextvars(trace_id=format_trace_id(current.get_span_context().trace_id))
        try:
            yield current
        except Exception as error:
            note_failure(current, type(error).__name__)
            raise
