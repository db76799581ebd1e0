import shutil
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


def model(site: Path, name: str, text: str) -> None:
    folder = site / "models" / name
    (folder / "1").mkdir(parents=True)
    (folder / "model.toml").write_text(f'name = "{name}"\nbackend = "fake"\n{text}')


ENCODER = 'service = "speech"\ntasks = ["tensor"]\n'
DECODER = 'service = "speech"\ntasks = ["recognize"]\n[recognizer]\nencoder = "{}"\n'


def test_models_of_other_services_and_tasks_are_no_defaults(site):
    (site / "headrace.toml").write_text(
        '[models]\npull = []\n[services.nlp.defaults]\nembed = "fine"\n[services.vision.defaults]\nclassify = "fine"\n'
    )
    lines = check(site).stderr.splitlines()
    assert lines[0].endswith("services.nlp.defaults.embed: 'fine' is a model of the service vision")
    assert lines[1].endswith("services.vision.defaults.classify: 'fine' does not classify; its tasks are: tensor")
    assert len(lines) == 2


def test_a_role_takes_a_model_of_its_task(site):
    model(site, "decoder", DECODER.format("encoder"))
    model(site, "encoder", ENCODER)
    (site / "headrace.toml").write_text('[models]\npull = []\n[services.speech.defaults]\nstreaming = "decoder"\n')
    assert check(site).exit_code == 0
    (site / "headrace.toml").write_text('[models]\npull = []\n[services.speech.defaults]\nstreaming = "encoder"\n')
    assert "streaming: 'encoder' does not recognize" in check(site).stderr


def test_a_part_that_is_missing_or_anothers_is_named(site):
    model(site, "decoder", DECODER.format("encoder"))
    result = check(site)
    assert "decoder/model.toml: recognizer.encoder: there is no model 'encoder'" in result.stderr
    model(site, "encoder", ENCODER.replace("speech", "nlp"))
    assert "'encoder' is a model of the service nlp, must be of the same service" in check(site).stderr


def test_what_the_zoo_does_not_have_is_named(site):
    (site / "headrace.toml").write_text('[models]\npull = ["duble"]\n')
    result = check(site)
    assert result.exit_code == 1
    assert "models.pull[0]: the zoo has no model 'duble'; did you mean 'double'?" in result.stderr


def test_a_default_for_nothing_that_exists_is_a_typo(site):
    (site / "headrace.toml").write_text('[services.nlp.defaults]\nzeroshot = "fine"\n')
    assert "unknown key in nlp.defaults 'zeroshot', did you mean 'zero_shot'?" in check(site).stderr


def test_the_projects_own_file_is_right(site):
    shutil.copy(Path(__file__).parents[2] / "headrace.toml", site / "headrace.toml")
    result = check(site)
    assert result.exit_code == 0, result.stderr
