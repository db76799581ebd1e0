import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis import errors
from services.chassis.errors import TABLE, ServiceError, from_gateway, to_item_status

MADE = [
    errors.invalid_argument("top_k", "is -1, must be 0 to 1000"),
    errors.malformed_message("a.B/C", "a.Request"),
    errors.message_too_large(2000, 1024),
    errors.unknown_method("/a.B/D"),
    errors.not_found("model", "efficientnet_lite", ["double", "efficientnet_lite0"]),
    errors.not_found("model version", "double@7", ["double@1"]),
    errors.not_found("user", "u1"),
    errors.not_found("item", "i1"),
    errors.not_found("trace", "ff"),
    errors.not_found("service", "x", ["y"]),
    errors.queue_full("double", 0.25),
    errors.deadline_unmeetable("double", 1.5),
    errors.too_many_streams(64, 2.0),
    errors.idle_timeout(60.0),
    errors.quota_exceeded("account:7", "10 calls a second are allowed", 0.5),
    errors.deadline_exceeded("a.B/C", 2.5),
    errors.draining(),
    errors.model_load_failed("m", "2", "no such file"),
    errors.model_unavailable("double", "it is still loading"),
    errors.engine_failed("double"),
    errors.internal("0af7"),
]


def unpack(error: ServiceError) -> list[object]:
    found = []
    for part in error.details().details:
        kind = getattr(error_details_pb2, part.type_url.rpartition(".")[2])
        found.append(kind.FromString(part.value))
    return found


def test_the_table_is_complete():
    born_here = {row.reason for row in TABLE.values() if row.template}
    assert {error.reason for error in MADE} == born_here
    for row in TABLE.values():
        assert row.template or row.gateway
        assert row.reason.replace("_", "").isupper()
        assert len(row.reason) <= 63
        assert 400 <= row.http < 600


@pytest.mark.parametrize("error", MADE, ids=lambda error: error.reason)
def test_every_error_carries_its_reason(error):
    status = error.details()
    assert status.code == code_pb2.Code.Value(error.code.name)
    assert status.message == error.message == str(error)
    assert "{" not in status.message
    info = unpack(error)[0]
    assert (info.reason, info.domain) == (error.reason, "headrace")
    assert dict(error.trailers())["grpc-status-details-bin"] == status.SerializeToString()


@pytest.mark.parametrize("reason", [row.reason for row in TABLE.values() if row.gateway])
def test_what_envoy_says_alone_is_whole(reason):
    error = from_gateway(reason, {"limit_bytes": "1024", "allowed": "POST"})
    assert "{" not in error.message
    assert error.message


def test_the_gateway_does_not_know_every_error():
    with pytest.raises(ValueError, match="QUEUE_FULL"):
        from_gateway("QUEUE_FULL")


def test_violations_name_the_fields():
    error = errors.invalid_arguments([("images[0]", "is empty"), ("top_k", "is -1")])
    assert error.message == "images[0]: is empty (and 1 more)"
    bad = unpack(error)[1]
    assert [(part.field, part.description) for part in bad.field_violations] == [
        ("images[0]", "is empty"),
        ("top_k", "is -1"),
    ]


def test_unknown_names_get_the_nearest_known():
    error = errors.not_found("model", "efficientnet_lite", ["double", "efficientnet_lite0"])
    assert "did you mean efficientnet_lite0?" in error.message
    assert "known: double, efficientnet_lite0" in error.message
    assert unpack(error)[1].resource_type == "headrace/model"


def test_waiting_times_are_told():
    for error, seconds in [(errors.queue_full("m", 0.25), 0.25), (errors.quota_exceeded("a", "b", 1.5), 1.5)]:
        retry = next(part for part in unpack(error) if isinstance(part, error_details_pb2.RetryInfo))
        assert retry.retry_delay.ToTimedelta().total_seconds() == seconds
    assert unpack(errors.draining())[1].retry_delay.ToMilliseconds() == 100


def test_items_hide_what_is_not_declared():
    assert to_item_status(errors.engine_failed("m")).message == errors.engine_failed("m").message
    hidden = to_item_status(RuntimeError("secret"), "0af7")
    assert hidden.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in hidden.message
    assert "0af7" in hidden.message


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet=st.characters(codec=None), max_size=5000), st.text(max_size=3000))
def test_whatever_a_caller_sends_the_details_fit_metadata(name, problem):
    for error in (
        errors.not_found("model", name, [problem]),
        errors.invalid_arguments([(name, problem)] * 9),
        errors.unknown_method(name),
        errors.quota_exceeded(name, problem, 1),
    ):
        assert error.details().ByteSize() < 4096
        assert len(error.message.encode()) <= errors.MAX_MESSAGE_BYTES
