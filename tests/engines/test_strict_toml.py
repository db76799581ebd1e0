from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from engines.strict_toml import ConfigError, load, validate


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gateway(Strict):
    listen: str = "127.0.0.1:8080"
    workers: int = Field(default=1, ge=1)
    ratio: float = 1.0


class Service(Strict):
    replicas: int = 1
    models: tuple[str, ...] = ()


class Settings(Strict):
    gateway: Gateway = Gateway()
    services: dict[str, Service] = {}
    extra: tuple[Gateway, ...] = ()
    either: tuple[int | str, ...] = ()
    optional: Service | None = None
    folder: Path = Path()


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "headrace.toml"
    path.write_text(text)
    return load(path, Settings)


def test_values_reach_their_types(tmp_path: Path) -> None:
    settings = read(
        tmp_path, 'folder = "a/b"\neither = [1, "n"]\n[gateway]\nratio = 2\n[services.vision]\nmodels = ["m"]'
    )
    assert settings.gateway.ratio == 2.0
    assert settings.services["vision"].models == ("m",)
    assert settings.either == (1, "n")
    assert settings.folder == Path("a/b")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[gateway]\nlissten = "x"', "gateway.lissten: unknown key, did you mean 'listen'?"),
        ("[gateway]\nzzz = 1", "gateway.zzz: unknown key, known here: listen, workers, ratio"),
        ("[gatway]", "gatway: unknown key, did you mean 'gateway'?"),
        ("[services.vision]\nreplica = 1", "services.vision.replica: unknown key, did you mean 'replicas'?"),
        ("[optional]\nreplica = 1", "optional.replica: unknown key, did you mean 'replicas'?"),
        ("[[extra]]\n[[extra]]\nworker = 1", "extra[1].worker: unknown key, did you mean 'workers'?"),
        ('[gateway]\nworkers = "2"', 'gateway.workers: is "2", must be a valid integer'),
        ("[gateway]\nworkers = true", "gateway.workers: is true, must be a valid integer"),
        ("[gateway]\nworkers = 0", "gateway.workers: is 0, must be greater than or equal to 1"),
        ("[gateway]\nlisten = 8080", "gateway.listen: is 8080, must be a valid string"),
        ("gateway = 1", "gateway: is 1, must be an object"),
        ("either = [1.5]", "either[0]: is 1.5, must be a valid integer"),
        ("[gateway", "is not valid TOML: Expected ']' at the end of a table declaration (at end of document)"),
        ("a = 1\na = 2", "is not valid TOML: Cannot overwrite a value (at end of document)"),
        ("x = 1979-05-27", "x: unknown key, known here: gateway, services, extra, either, optional, folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert str(raised.value) == f"{tmp_path / 'headrace.toml'}: {line}"


def test_an_unknown_key_comes_before_what_it_left_missing(tmp_path: Path) -> None:
    class Needs(Strict):
        listen: str

    with pytest.raises(ConfigError, match="lissten: unknown key"):
        validate({"lissten": "x"}, Needs, "f.toml")
    with pytest.raises(ConfigError, match="listen: is missing, and is required"):
        validate({}, Needs, "f.toml")


def test_lenient_validation_takes_numbers_from_strings() -> None:
    assert validate({"workers": "8"}, Gateway, "environment", strict=False).workers == 8


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: there is no such file"):
        load(tmp_path / "no.toml", Settings)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, Settings)
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 5\)"):
        load(binary, Settings)


def test_the_parts_of_an_error_are_there_for_programs() -> None:
    error = ConfigError("f.toml", "a.b", "is wrong", "must be right")
    assert (error.path, error.field, error.problem, error.allowed) == (
        Path("f.toml"),
        "a.b",
        "is wrong",
        "must be right",
    )
