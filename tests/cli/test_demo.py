"""What `headrace demo` does without answers; tests/e2e/test_commands.py has the walk itself."""

import time

import pytest
from typer.testing import CliRunner

from cli import demo_steps
from cli.demo import _is_coming, app
from cli.demo_steps import PAGE, PHOTO, STEPS, TALK
from headrace import HeadraceError, NotFound, Unavailable
from headrace._errors import Details


def unavailable(message: str, retry_after: float | None = None, reason: str = "MODEL_UNAVAILABLE") -> Unavailable:
    return Unavailable(message, Details(reason=reason, retry_after=retry_after))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (unavailable("it is not in the repository yet", retry_after=5.0), True),
        (unavailable("it is still loading"), True),
        (unavailable("its tokenizer is damaged"), False),
        (unavailable("no replica answers", reason="SERVICE_UNAVAILABLE"), True),
        (NotFound("there is no such model"), False),
    ],
)
def test_only_what_may_still_come_is_waited_for(error: HeadraceError, expected: bool) -> None:
    assert _is_coming(error) is expected


def test_every_domain_is_walked_with_inputs_that_are_carried() -> None:
    assert {step.domain for step in STEPS} == {"vision", "nlp", "recommendation", "speech"}
    sizes = [path.stat().st_size for path in (PAGE, PHOTO, TALK)]
    assert max(sizes) <= 100_000


def test_without_an_answer_it_waits_as_long_as_it_is_told_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_steps, "STEPS", STEPS[:1])
    begun = time.monotonic()
    result = CliRunner().invoke(app, ["--gateway", "127.0.0.1:1", "--wait", "0.5"])
    assert 0.5 < time.monotonic() - begun < 20.0
    assert result.exit_code == 1
    assert "no answer: UNAVAILABLE" in result.output
    assert "0 of 1 calls answered" in result.output
