import io
import json
import logging

import pytest

from services.chassis import logs


@pytest.fixture(autouse=True)
def root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def speak():
    log = logging.getLogger("services.test")
    log.debug("unheard")
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("call of %s failed\nhard", "a.B/C", extra={"trace_id": "0af7"})


def test_machines_read_json_lines():
    stream = io.StringIO()
    logs.set_up("info", "vision-0", stream)
    speak()
    [line] = stream.getvalue().splitlines()
    facts = json.loads(line)
    assert facts["message"] == "call of a.B/C failed\nhard"
    assert (facts["level"], facts["process"], facts["logger"]) == ("error", "vision-0", "services.test")
    assert (facts["trace_id"], facts["error"]) == ("0af7", "ValueError")
    assert "raise ValueError" in facts["traceback"]
    assert facts["time"].endswith("+00:00")


def test_people_read_plain_lines():
    stream = Terminal()
    logs.set_up("debug", "vision-0", stream)
    speak()
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("debug   vision-0: unheard")
    assert lines[1].endswith("error   vision-0: call of a.B/C failed")
    assert lines[2] == "hard (trace 0af7)"
    assert lines[-1] == "ValueError: no"
