"""The generator and the lint, run as the developer runs them, on a copy of the project."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = "clients/python/headrace/vision/v1/vision_pb2.pyi"


def _run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "clients", tmp_path / "clients", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


def test_the_committed_stubs_are_current() -> None:
    done = _run(ROOT / "protos" / "generate.py", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_drift_is_named_and_repaired(copy: Path) -> None:
    generate = copy / "protos" / "generate.py"
    (copy / STUB).write_text("")
    (copy / "clients/python/headrace/nlp/v1/nlp_pb2.py").unlink()
    left = copy / "clients/python/headrace/old/v1/old_pb2.py"
    left.parent.mkdir(parents=True)
    left.write_text("")
    done = _run(generate, "--check")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "generate: committed stubs are not current:",
        "  differs: headrace/vision/v1/vision_pb2.pyi",
        "  left over: headrace/old/v1/old_pb2.py",
        "  missing: headrace/nlp/v1/nlp_pb2.py",
        "run: make gen, and commit the result",
    ]
    assert _run(generate).returncode == 0
    assert _run(generate, "--check").returncode == 0
    assert (copy / STUB).read_text() == (ROOT / STUB).read_text()
    assert not left.exists()


def test_a_new_proto_is_picked_up(copy: Path) -> None:
    proto = copy / "protos/headrace/weather/v1/weather.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text(
        'syntax = "proto3";\npackage headrace.weather.v1;\nimport "headrace/common/v1/common.proto";\n'
        "message Sky { headrace.common.v1.Point sun = 1; }\n"
    )
    assert _run(copy / "protos" / "generate.py").returncode == 0
    folder = copy / "clients/python/headrace/weather"
    assert (folder / "__init__.py").exists()
    assert {path.name for path in (folder / "v1").iterdir()} == {"__init__.py", "weather_pb2.py", "weather_pb2.pyi"}
    assert "from headrace.common.v1 import common_pb2" in (folder / "v1/weather_pb2.py").read_text()


def test_a_broken_proto_fails_with_its_line(copy: Path) -> None:
    _edit(copy / "protos/headrace/common/v1/common.proto", "string name = 1;", "strin name = 1;")
    before = (copy / STUB).read_text()
    done = _run(copy / "protos" / "generate.py")
    assert done.returncode == 1
    assert "headrace/common/v1/common.proto:" in done.stderr
    assert '"strin" is not defined' in done.stderr
    assert done.stderr.endswith("generate: protoc failed, see its messages above\n")
    assert (copy / STUB).read_text() == before


def test_lint_passes_without_history(copy: Path) -> None:
    done = _run(copy / "protos" / "lint.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "lint: no git history here, so there is no older API to compare with\n"


def test_lint_wants_a_comment_on_every_field(copy: Path) -> None:
    _edit(copy / "protos/headrace/common/v1/common.proto", "  // Name in the model repository.*\n", "")
    done = _run(copy / "protos" / "lint.py")
    assert done.returncode != 0
    assert 'Field "name" should have a non-empty comment' in done.stdout


@pytest.fixture
def history(copy: Path) -> Path:
    """The copy, committed on a branch called main."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("add", "protos"),
        ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "Publish"),
    ):
        subprocess.run([git, "-C", copy, *arguments], check=True)
    return copy


def test_lint_accepts_an_added_field(history: Path) -> None:
    proto = history / "protos/headrace/common/v1/common.proto"
    _edit(proto, r"float y = 2;\n", "float y = 2;\n  // Depth, in pixels.\n  float z = 3;\n")
    done = _run(history / "protos" / "lint.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lint_refuses_a_changed_type(history: Path) -> None:
    _edit(history / "protos/headrace/common/v1/common.proto", "float score = 2;", "double score = 2;")
    done = _run(history / "protos" / "lint.py")
    assert done.returncode != 0
    assert 'Field "2" with name "score"' in done.stdout


def test_lint_names_a_revision_that_is_not_there(history: Path) -> None:
    done = _run(history / "protos" / "lint.py", "--against", "v9")
    assert (done.returncode, done.stderr) == (1, "lint: --against v9: git knows no such revision\n")
