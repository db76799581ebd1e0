import pytest

from gateway.topology import Address, Edge, ServiceNode, Snapshot, TopologyError

VISION = ServiceNode("vision", ("headrace.vision.v1.VisionService",), ("unix:/run/vision.sock",))


@pytest.mark.parametrize("text", ["unix:/run/a.sock", "127.0.0.1:80", "[::1]:9000", "host.example:1"])
def test_addresses_round_trip(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "unix:", "unix:run/a", "unix:/" + "x" * 107, "host", ":80", "a:b", "a:65536"])
def test_bad_addresses_are_named(text: str) -> None:
    with pytest.raises(TopologyError, match=r"^listen: "):
        Address.parse(text, "listen")


def test_a_snapshot_is_a_value() -> None:
    models = {"double": "vision"}
    one, two = (Snapshot((VISION,), "unix:/c.sock", models) for _ in range(2))
    models["late"] = "vision"
    assert one == two
    assert "late" not in one.models


@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        ("control", {"control": "nowhere"}),
        ("sample_ratio", {"sample_ratio": 1.5}),
        ("edge.listen", {"edge": Edge(listen="8080")}),
        ("edge.max_message_bytes", {"edge": Edge(max_message_bytes=1)}),
        ("models.double: no service named 'speech'", {"models": {"double": "speech"}}),
        ("services: 'control'", {"services": (ServiceNode("control", (), ()),)}),
        ("services: 'vision'", {"services": (VISION, VISION)}),
        ("services: 'Vision'", {"services": (ServiceNode("Vision", (), ()),)}),
        (r"services.vision.endpoints\[0\]", {"services": (ServiceNode("vision", (), ("x",)),)}),
        ("already belongs to vision", {"services": (VISION, ServiceNode("other", VISION.rpc_services, ()))}),
    ],
)
def test_what_cannot_be_rendered_is_refused(problem: str, changes: dict[str, object]) -> None:
    values: dict[str, object] = {"services": (VISION,), "control": "unix:/c.sock", **changes}
    with pytest.raises(TopologyError, match=problem):
        Snapshot(**values)  # type: ignore[arg-type]  # wrong values are the point
