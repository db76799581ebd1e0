"""Which folder may import which: the table in CONTRIBUTING.md, enforced."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIRST_PARTY = {"benchmarks", "cli", "clients", "engines", "gateway", "headrace", "services", "tests"}
WIRE = {"grpc", "google", "grpc_status", "grpc_health", "grpc_reflection", "opentelemetry", "envoy", "xds", "udpa"}

#: folder -> prefixes it may import, of our own packages and of the wire libraries. Anything else third-party is free.
ALLOWED: dict[str, set[str]] = {
    "engines": {"engines"},
    "services": {"services", "engines", "headrace"} | WIRE - {"envoy", "xds", "udpa"},
    "gateway": {"gateway", "services.chassis", "headrace"} | WIRE,
    "cli": FIRST_PARTY - {"tests", "clients"} | WIRE,
    "benchmarks": FIRST_PARTY - {"tests", "clients"} | WIRE,
    "clients/python/headrace": {"headrace", "grpc", "google", "grpc_status"},
}
DOMAINS = {"vision", "speech", "nlp", "recommendation"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "_pb2" not in path.name]


def within(module: str, prefixes: set[str]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_the_right_way(folder: str) -> None:
    assert sources(folder), f"{folder} holds no Python file"
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources(folder)
        for module in imports(path)
        if within(module, FIRST_PARTY | WIRE)
        # `from services import chassis` names the package first; the longer name decides.
        and not within(module, ALLOWED[folder])
        and not any(allowed.startswith(module + ".") for allowed in ALLOWED[folder])
    ]
    assert not wrong, "\n".join(wrong)


def test_services_do_not_import_each_other() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for domain in DOMAINS | {"chassis"}
        if (ROOT / "services" / domain).is_dir()
        for path in sources(f"services/{domain}")
        for module in imports(path)
        if within(module, {f"services.{other}" for other in DOMAINS - {domain}})
    ]
    assert not wrong, "\n".join(wrong)


def test_only_telemetry_sets_up_the_tracing_sdk() -> None:
    users = {
        str(path.relative_to(ROOT))
        for folder in ("services", "gateway", "cli", "engines", "clients/python/headrace")
        for path in sources(folder)
        for module in imports(path)
        if module.startswith("opentelemetry.sdk")
    }
    assert users <= {"services/chassis/telemetry.py"}, users


def test_the_engine_contract_is_a_short_leaf() -> None:
    path = ROOT / "engines" / "base.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100
    roots = {module.split(".")[0] for module in imports(path)}
    assert roots <= set(sys.stdlib_module_names) | {"numpy"}, roots


def test_modules_stay_readable() -> None:
    """350 lines is the alarm, 300 the habit."""
    long = {
        str(path.relative_to(ROOT)): count
        for folder in ALLOWED
        for path in sources(folder)
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert not long, long
