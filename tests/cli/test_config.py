from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.config import app

DOUBLE = """name = "{name}"
service = "vision"
tasks = ["tensor"]
backend = "fake"
summary = "s"
origin = "o"
licence = "l"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "models/fine/1").mkdir(parents=True)
    (tmp_path / "models/fine/model.toml").write_text(DOUBLE.format(name="fine"))
    (tmp_path / "headrace.toml").write_text(
        '[models]\npull = ["double"]\n[services.vision]\nmodels = ["fine", "double"]'
    )
    return tmp_path


def check(site: Path):
    return CliRunner().invoke(app, ["check", str(site / "headrace.toml")])


def test_a_right_configuration_is_summed_up(site):
    result = check(site)
    assert result.exit_code == 0, result.output
    assert "headrace.toml: ok" in result.output
    assert "fine: ok" in result.output


def test_every_broken_manifest_is_one_line(site):
    for name, text in {
        "wrong": DOUBLE.format(name="other"),
        "typo": DOUBLE.format(name="typo") + "sumary = 1\n",
    }.items():
        (site / f"models/{name}").mkdir()
        (site / f"models/{name}/model.toml").write_text(text)
    result = check(site)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert "typo" in lines[0]
    assert "did you mean 'summary'?" in lines[0]
    assert "wrong" in lines[1]


def test_a_default_that_does_not_exist_is_named(site):
    (site / "headrace.toml").write_text('[services.vision.defaults]\nclassify = "fin"')
    result = check(site)
    assert result.exit_code == 1
    assert "services.vision.defaults.classify: there is no model 'fin'" in result.stderr


def test_a_typo_in_the_file_is_one_line(site):
    (site / "headrace.toml").write_text("[gateway]\nlissten = 1")
    result = check(site)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "did you mean 'listen'?" in result.stderr
