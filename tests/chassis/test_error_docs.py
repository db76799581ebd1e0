"""docs/errors.md lists every reason with its code: callers' programs are written against it."""

from pathlib import Path

from services.chassis.error_table import TABLE

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_reason_is_documented_with_its_code() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    documented = {line.split("|")[1].strip(" `"): line for line in lines if line.startswith("| `")}
    assert set(documented) == set(TABLE)
    for reason, row in TABLE.items():
        assert f"`{row.code.name}` | {row.http} |" in documented[reason]
