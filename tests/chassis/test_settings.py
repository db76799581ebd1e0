from pathlib import Path

import pytest

from engines.strict_toml import ConfigError
from engines.zoo import registry
from services.chassis.default_models import DEFAULTS, PULL
from services.chassis.settings import SERVICES, ServiceSettings, Settings

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    path = folder / "headrace.toml"
    path.write_text(text)
    return path


def test_defaults_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(environ={})
    assert settings.file is None
    assert settings.gateway.listen == "127.0.0.1:8080"
    assert set(settings.services) <= set(SERVICES)
    assert settings.state_dir == tmp_path / ".headrace"
    assert settings.models_dir == tmp_path / "models"


def test_the_file_that_comes_with_the_project_says_the_defaults():
    file, built_in = Settings.load(ROOT / "headrace.toml", environ={}), Settings()
    assert file.model_dump() == built_in.model_dump()
    assert list(file.services) == [name for name in SERVICES if name in file.services]


def test_default_models_are_the_zoos_and_fetched():
    assert {model for models in DEFAULTS.values() for model in models.values()} <= set(PULL)
    assert set(PULL) <= set(registry.NAMES)


def test_the_limits_of_a_call_have_defaults():
    limits = ServiceSettings().model_dump()
    assert {name: limits[name] for name in limits if name.startswith("max_")} == {
        "max_items": 1024,
        "max_pixels": 50_000_000,
        "max_text_bytes": 1_048_576,
        "max_audio_seconds": 7200,
        "max_candidates": 10_000,
        "max_streams": 64,
    }


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    write(folder, '[models]\ndirectory = "../weights"')
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(Path("site/headrace.toml"), environ={})
    assert settings.models_dir.resolve() == tmp_path / "weights"
    assert settings.state_dir == folder / ".headrace"
    monkeypatch.chdir(folder)
    assert Settings.load(environ={}).file == folder / "headrace.toml"


def test_flag_over_environment_over_file(tmp_path):
    path = write(
        tmp_path, '[gateway]\nlisten = "127.0.0.1:1"\nconcurrency = 2\n[services.vision]\ncores = 1\nreplicas = 1'
    )
    environ = {
        "HEADRACE_GATEWAY_LISTEN": "127.0.0.1:2",
        "HEADRACE_GATEWAY_CONCURRENCY": "3",
        "HEADRACE_SERVICES_VISION_CORES": "4",
        "HEADRACE_MODELS_PULL": "double, other,",
        "HEADRACE_TRACING_MAX_TRACES_PER_SECOND": "0.5",
        "HEADRACE_CACHE": "not a setting",
        "PATH": "/bin",
    }
    settings = Settings.load(path, {"gateway.listen": "127.0.0.1:3"}, environ)
    assert settings.gateway.listen == "127.0.0.1:3"
    assert settings.gateway.concurrency == 3
    assert settings.services["vision"].cores == 4
    assert settings.services["vision"].replicas == 1
    assert settings.models.pull == ("double", "other")
    assert settings.tracing.max_traces_per_second == 0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[gateway]\nlissten = "x"', "gateway.lissten: unknown key, did you mean 'listen'?"),
        ('[gatewy]\nlisten = "x"', "gatewy: unknown key, did you mean 'gateway'?"),
        ("[services.visoin]\ncores = 1", "services: unknown service 'visoin', did you mean 'vision'?"),
        ("[services.vision]\ncore = 1", "services.vision.core: unknown key, did you mean 'cores'?"),
        ('[services.vision]\ncores = "2"', 'services.vision.cores: is "2", must be a valid integer'),
        ("[services.vision]\ncores = 0", "services.vision.cores: is 0, must be greater than or equal to 1"),
        ('[gateway]\nlisten = "8080"', "gateway.listen: '8080' is no address"),
        ('[gateway]\nlisten = "127.0.0.1:99999"', "gateway.listen: '127.0.0.1:99999' is no address"),
        ('[gateway]\nlisten = "::1:80"', "IPv6 host, which stands in brackets"),
        ('[gateway]\nlisten = "unix:/a"', "gateway.listen: this address is TCP"),
        ("[gateway]\ndefault_deadline_seconds = 400", "at most max_deadline_seconds (300) is allowed"),
        ('[services.vision]\nendpoints = ["a:1", "b"]', "services.vision.endpoints[1]: 'b' is no address"),
        ('[logging]\nlevel = "loud"', "logging.level: is \"loud\", must be 'debug', 'info', 'warning' or 'error'"),
        ("[gateway\n", "is not valid TOML: "),
    ],
)
def test_a_mistake_is_one_line(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Settings.load(path, environ={})
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.toml: there is no such file"):
        Settings.load(tmp_path / "no.toml", environ={})


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"HEADRACE_GATEWAY_LISTE": "a"},
            "HEADRACE_GATEWAY_LISTE: unknown variable, did you mean HEADRACE_GATEWAY_LISTEN?",
        ),
        ({"HEADRACE_GATEWAY_LISTEN": "a"}, "HEADRACE_GATEWAY_LISTEN: gateway.listen: 'a' is no address"),
        ({"HEADRACE_SERVICES_VISION_CORES": "two"}, 'HEADRACE_SERVICES_VISION_CORES: services.vision.cores: is "two"'),
    ],
)
def test_a_wrong_variable_is_named(tmp_path, environ, words):
    with pytest.raises(ConfigError) as caught:
        Settings.load(write(tmp_path, ""), environ=environ)
    assert words in str(caught.value)


def test_replicas_listen_at_successive_ports(tmp_path):
    path = write(tmp_path, '[services.vision]\nlisten = "127.0.0.1:9101"')
    section = Settings.load(path, environ={}).services["vision"]
    assert [section.address(replica) for replica in range(3)] == ["127.0.0.1:9101", "127.0.0.1:9102", "127.0.0.1:9103"]
    assert Settings.load(write(tmp_path, "[services.vision]"), environ={}).services["vision"].address(1) == ""
