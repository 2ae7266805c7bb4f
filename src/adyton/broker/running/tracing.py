"""Traces, if asked for (``--otlp URL``): a span for each request and for what a decision is made of.

Nothing of this costs anything where it is not asked for: ``around`` puts itself around methods when a worker is put
together, and the library is imported then. A W3C ``traceparent`` is continued; a malformed one begins a new trace. Spans
carry areas, statuses and codes of ours, sizes and the tenant's name: no path below the area, no claim, no value.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adyton import __version__
from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import Application, HttpRequest
from adyton.broker.running.journal import area
from adyton.errors import AdytonError, ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

FLUSH_MILLISECONDS = 5000


class Tracing:
    """The tracer of one worker. ``ConfigError`` ``extra_missing`` without ``adyton[otel]``."""

    def __init__(self, url: str, environment: str, service: str = "adyton-broker") -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(
                "not the URL of a collector of traces",
                code="setting_invalid",
                field="otlp",
                expected="http(s)://host:4318/v1/traces",
                got=url[:80],
            )
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise ConfigError(
                "traces need a part that is not installed",
                code="extra_missing",
                field="otlp",
                hint="pip install 'adyton[otel]', or leave --otlp out",
            ) from error
        known = {"service.name": service, "service.version": __version__}
        resource = Resource({**known, "deployment.environment.name": environment})
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        endpoint = url if parts.path.strip("/") else url.rstrip("/") + "/v1/traces"
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
        self._tracer = self._provider.get_tracer("adyton.broker", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def application(self, inner: Application) -> Application:
        """``inner`` with a span for each request."""
        from opentelemetry import context, trace
        from opentelemetry.trace import SpanKind

        def traced(request: HttpRequest) -> Answer | Awaitable[Answer]:
            carrier = {
                name: value.decode("latin-1")
                for name in ("traceparent", "tracestate")
                if (value := request.headers.get(name.encode())) is not None and len(value) <= 512
            }
            parent = self._propagator.extract(carrier)
            span = self._tracer.start_span("request", context=parent, kind=SpanKind.SERVER)
            request.trace = trace.format_trace_id(span.get_span_context().trace_id)
            token = context.attach(trace.set_span_in_context(span, parent))
            try:
                answer = inner(request)
                if isinstance(answer, Answer):
                    _finish(span, request, answer)
                    return answer
                return waited(answer, span, request)
            finally:
                context.detach(token)

        async def waited(answer: Awaitable[Answer], span: Span, request: HttpRequest) -> Answer:
            token = context.attach(trace.set_span_in_context(span))
            try:
                given = await answer
            finally:
                context.detach(token)
            _finish(span, request, given)
            return given

        return traced

    def around(self, owner: object, method: str, name: str) -> None:
        """Give every call of an asynchronous method of ``owner`` a span of its own."""
        inner: Callable[..., Awaitable[Any]] = getattr(owner, method)

        @functools.wraps(inner)
        async def traced(*args: Any, **kwargs: Any) -> Any:
            with self._tracer.start_as_current_span(
                name, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    return await inner(*args, **kwargs)
                except AdytonError as error:
                    span.set_attribute("adyton.code", error.code)
                    raise

        setattr(owner, method, traced)

    def close(self) -> None:
        """Send what waits; not for longer than a few seconds."""
        self._provider.force_flush(FLUSH_MILLISECONDS)
        self._provider.shutdown()


def _finish(span: Span, request: HttpRequest, answer: Answer) -> None:
    where = request.where
    span.update_name(area(where))
    span.set_attributes(
        {
            "http.request.method": request.method,
            "http.response.status_code": answer.status,
            "adyton.area": area(where),
            "adyton.tenant": where.tenant if where is not None else "",
            "adyton.code": answer.reason,
            "adyton.session": answer.session,
        }
    )
    span.end()
