"""Tracing at the edge: Envoy's root span, and who decides whether a call is traced.

The share of calls that the gateway samples by itself changes with load, so it travels in the routes (RDS), never in
the listener, whose update would drain connections. A caller's own sampled trace is kept whole whatever that share is:
every route comes twice, first for requests that bring a sampled `traceparent`.
"""

from envoy.config.route.v3 import route_components_pb2
from envoy.config.trace.v3 import http_tracer_pb2, opentelemetry_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from envoy.type.tracing.v3 import custom_tag_pb2
from envoy.type.v3 import percent_pb2

from gateway.envoy.bootstrap import control_service
from gateway.envoy.wire import packed

SERVICE_NAME = "headrace-gateway"
MODEL_HEADER = "x-headrace-model"
_TEN_THOUSAND = 10_000


def tracer() -> http_connection_manager_pb2.HttpConnectionManager.Tracing:
    """Return the connection manager's tracing: one server span per call, exported to the control process."""
    whole = percent_pb2.Percent(value=100)
    tracing = http_connection_manager_pb2.HttpConnectionManager.Tracing(
        client_sampling=percent_pb2.Percent(value=0),
        random_sampling=whole,
        overall_sampling=whole,
        operation="%REQ(:PATH)%",
        provider=http_tracer_pb2.Tracing.Http(
            name="envoy.tracers.opentelemetry",
            typed_config=packed(
                opentelemetry_pb2.OpenTelemetryConfig(grpc_service=control_service(), service_name=SERVICE_NAME)
            ),
        ),
    )
    tracing.spawn_upstream_span.value = False
    tracing.custom_tags.append(
        custom_tag_pb2.CustomTag(
            tag="headrace.model.name", request_header=custom_tag_pb2.CustomTag.Header(name=MODEL_HEADER)
        )
    )
    return tracing


def sampling(ratio: float) -> route_components_pb2.Tracing:
    """Return a route's tracing: `ratio` (0..1) of its calls start a trace."""
    # Envoy draws a number below 10,000 from the request id: out of a million, every share above 1 % would be all.
    share = percent_pb2.FractionalPercent(
        numerator=round(ratio * _TEN_THOUSAND), denominator=percent_pb2.FractionalPercent.TEN_THOUSAND
    )
    whole = percent_pb2.FractionalPercent(numerator=100)
    none = percent_pb2.FractionalPercent(numerator=0)
    return route_components_pb2.Tracing(client_sampling=none, random_sampling=share, overall_sampling=whole)


def sampled_caller() -> route_components_pb2.HeaderMatcher:
    """Return the matcher of requests whose `traceparent` has the sampled flag (bit 0 of the last byte)."""
    pattern = regex_pb2.RegexMatcher(regex=".+-.[13579bdf]")  # Envoy refuses long programs
    return route_components_pb2.HeaderMatcher(
        name="traceparent", string_match=string_pb2.StringMatcher(safe_regex=pattern)
    )
