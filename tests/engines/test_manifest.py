from pathlib import Path

import pytest

from engines import manifest
from engines.strict_toml import ConfigError
from engines.work import BatchLimits

HEAD = 'name = "m"\nservice = "vision"\n'
IMAGE = '[image]\ninput = "x"\nwidth = 8\nheight = 8\n'


def read(tmp_path: Path, text: str, folder: str = "m") -> manifest.Manifest:
    path = tmp_path / folder
    path.mkdir()
    (path / "model.toml").write_text(text)
    return manifest.load(path)


def test_a_whole_manifest(tmp_path: Path) -> None:
    read_back = read(
        tmp_path,
        HEAD
        + 'tasks = ["classify", "embed", "tensor"]\nbackend = "onnxruntime"\n'
        + IMAGE
        + 'mean = [127, 127, 127]\n[classify]\noutput = "logits"\n[embed]\noutput = "features"\n'
        + "[batching]\nmax_rows = 4\nmax_tokens = 100\n[instances]\ncount = 2\n"
        + '[[tensors.inputs]]\nname = "x"\ndatatype = "FP32"\nshape = [-1, 3, 8, 8]\n',
    )
    assert read_back.limits == BatchLimits(4, 512, 100)
    assert read_back.image is not None
    assert read_back.image.mean == (127.0, 127.0, 127.0)
    assert read_back.classify is not None
    assert read_back.classify.activation == "softmax"
    assert read_back.tensors.inputs[0].shape == (-1, 3, 8, 8)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEAD.replace("vision", "vison") + 'tasks = ["tensor"]', "service: is \"vison\", must be 'vision'"),
        (
            HEAD + 'tasks = ["clasify"]',
            "tasks[0]: is \"clasify\", must be 'classify', ",
        ),
        (HEAD + "tasks = []", "tasks: tuple should have at least 1 item"),
        (HEAD + 'task = ["tensor"]', "task: unknown key, did you mean 'tasks'?"),
        (HEAD, "tasks: is missing, and is required"),
        (HEAD + 'tasks = ["tensor", "tensor"]', "tasks: names a task twice"),
        (HEAD + 'tasks = ["classify"]\n' + IMAGE, "classify: the section is missing, and the task 'classify' needs it"),
        (HEAD + 'tasks = ["embed"]\n[embed]\noutput = "y"', "image: the section is missing"),
        (HEAD + 'tasks = ["tensor"]\n[embed]\noutput = "y"', "embed: the section is there, but tasks does not name"),
        (HEAD + 'tasks = ["tensor"]\n[fake]', "fake: the section is there, but backend is 'auto', not 'fake'"),
        (HEAD + 'tasks = ["tensor"]\n' + IMAGE + "scale = [1, 0, 1]", "image.scale: has a zero"),
        (HEAD + 'tasks = ["tensor"]\n' + IMAGE + "mean = [1, 2]", "image.mean[2]: is missing"),
        (HEAD + 'tasks = ["tensor"]\n' + IMAGE + "crop = 1.5", "image.crop: is 1.5, must be less than or equal to 1"),
        (
            HEAD + 'tasks = ["tensor"]\n[batching]\nmax_row = 1',
            "batching.max_row: unknown key, did you mean 'max_rows'?",
        ),
        (HEAD + 'tasks = ["tensor"]\n[batching]\nmax_rows = 0', "batching.max_rows: is 0, must be greater than or"),
        (
            HEAD + 'tasks = ["tensor"]\n[[tensors.outputs]]\nname = "y"\ndatatype = "FLOAT"\nshape = [1]',
            "tensors.outputs[0].datatype: is \"FLOAT\", must be 'BOOL', 'UINT8'",
        ),
    ],
)
def test_a_mistake_names_field_and_what_is_allowed(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'm' / 'model.toml'}: {line}")
    assert "\n" not in str(raised.value)


def test_the_name_is_the_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name: is 'm', must be the name of its folder, 'other'"):
        read(tmp_path, HEAD + 'tasks = ["tensor"]', folder="other")


@pytest.mark.parametrize("name", ["a b", "a@1", ".hidden", "-x", "x" * 129])
def test_names_that_callers_could_not_write_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 128 letters"):
        read(tmp_path, HEAD.replace('"m"', f'"{name}"') + 'tasks = ["tensor"]', folder=name)
