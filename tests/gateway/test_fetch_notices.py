from pathlib import Path

from gateway.fetch import Fetch
from services.chassis.settings import Settings


def test_a_notice_of_a_pull_reaches_people_once(tmp_path: Path) -> None:
    lines: list[str] = []
    fetch = Fetch(Settings(), lines.append, lambda _: None)
    for said in (
        "films: converting to ONNX",
        "films: note: research use only",
        "films_retrieval: note: research use only",
        "films: note: another word",
    ):
        fetch._notice(said)
    assert lines == ["films: note: research use only", "films: note: another word"]
