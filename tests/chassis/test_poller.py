from services.chassis import poller


def test_the_operators_choice_stands() -> None:
    chosen: dict[str, str] = {}
    poller.choose(chosen)
    assert chosen == {"GRPC_EXPERIMENTS": "-event_engine_poller_for_python"}
    own = {"GRPC_EXPERIMENTS": "trace"}
    poller.choose(own)
    assert own == {"GRPC_EXPERIMENTS": "trace"}
