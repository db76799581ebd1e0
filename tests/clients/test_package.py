import inspect
import subprocess
import sys
from pathlib import Path

import headrace
from headrace._transport import AsyncCaller, Caller


def test_all_names_what_the_package_offers() -> None:
    offered = {
        name for name, value in vars(headrace).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert sorted(offered) == sorted(headrace.__all__)
    assert headrace.__all__ == sorted(headrace.__all__)


def test_everything_public_is_documented() -> None:
    undocumented = [
        name for name in headrace.__all__ if inspect.isclass(value := getattr(headrace, name)) and not value.__doc__
    ]
    assert undocumented == []


def test_both_kinds_of_client_have_the_same_calls() -> None:
    for blocking, awaited in ((headrace.Client, headrace.AsyncClient), (headrace.Vision, headrace.AsyncVision)):
        methods = [name for name, _ in inspect.getmembers(blocking, inspect.isfunction) if not name.startswith("_")]
        for name in (*methods, "__init__"):
            parameters = inspect.signature(getattr(blocking, name)).parameters
            others = inspect.signature(getattr(awaited, name)).parameters
            assert list(parameters) == list(others), name
            annotations = [item.annotation for item in parameters.values() if item.annotation is not Caller]
            assert annotations == [item.annotation for item in others.values() if item.annotation is not AsyncCaller]


def test_types_are_published() -> None:
    assert (Path(headrace.__file__).parent / "py.typed").exists()


def test_importing_the_client_loads_only_light_packages() -> None:
    program = "import sys, headrace; print(*{name.partition('.')[0] for name in sys.modules})"
    path = str(Path(headrace.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"headrace", "grpc", "google"} <= loaded
    assert loaded.isdisjoint({"numpy", "onnxruntime", "pydantic", "opentelemetry", "services", "engines", "gateway"})
