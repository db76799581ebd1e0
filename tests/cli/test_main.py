import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import _SUBCOMMANDS, app

ROOT = Path(__file__).parents[2]


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", code] if code else ["-m", "cli.main"]), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys; from cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted(m for m in sys.modules if m.startswith(('cli.', 'grpc', 'rich', 'numpy', 'gateway'))))"
    )
    result = run("--help", code=code)
    assert all(name in result.stdout for name in _SUBCOMMANDS)
    assert "['cli.lazy_group', 'cli.main']" in result.stdout


@pytest.mark.parametrize("name", _SUBCOMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["upp"])
    assert result.exit_code == 2
    assert "No such command 'upp'" in result.output


def test_what_nobody_foresaw_is_one_line_too() -> None:
    code = "import cli.version, cli.main\ncli.version.typer.echo = lambda *a: 1 / 0\ncli.main.main()"
    result = run("version", code=code)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ZeroDivisionError: division by zero (unexpected; HEADRACE_TRACEBACK=1")
    assert result.stderr.count("\n") == 1
