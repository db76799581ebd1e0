"""One Prometheus page for the whole mesh: every process's own page with a label that says whose it is."""

import asyncio
import re
from collections.abc import Iterable, Mapping

from gateway.plain_http import HttpError, fetch

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?(.*)")
UP = "headrace_process_up"
"""Whether the page of a process could be read: 1 or 0."""


async def scrape(address: str, path: str) -> str | None:
    """Return one page's text, or None when it cannot be read."""
    try:
        page = await fetch(address, path)
    except HttpError:
        return None
    return page.body.decode("utf-8", "replace") if page.status == 200 else None


async def collect(pages: Mapping[str, tuple[str, str]], own: Mapping[str, str]) -> str:
    """Merge the pages at (address, path) of each process with those already rendered; one that is down is left out."""
    texts = await asyncio.gather(*(scrape(address, path) for address, path in pages.values()))
    found: dict[str, str | None] = {**own, **dict(zip(pages, texts, strict=True))}
    up = [f"# HELP {UP} Whether the metrics of a process could be read.", f"# TYPE {UP} gauge"]
    up += [f'{UP}{{process="{name}"}} {int(text is not None)}' for name, text in found.items()]
    return merge({name: text for name, text in found.items() if text is not None}) + "\n".join(up) + "\n"


def merge(pages: Mapping[str, str]) -> str:
    """Merge Prometheus texts: each sample gets the label `process`, each family one heading and one place."""
    headings: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in pages.items():
        for family, heading, lines in _families(text.splitlines()):
            if family not in headings:
                headings[family] = heading
            samples.setdefault(family, []).extend(_labelled(line, process) for line in lines)
    parts = [line for family, lines in samples.items() for line in (*headings[family], *lines)]
    return "\n".join(parts) + "\n" if parts else ""


def _families(lines: Iterable[str]) -> Iterable[tuple[str, list[str], list[str]]]:
    """Yield (name, HELP and TYPE lines, sample lines) in the order of the page."""
    name, heading, samples = "", [], []  # type: str, list[str], list[str]
    for line in lines:
        if line.startswith(("# HELP ", "# TYPE ")):
            family = line.split(" ", 3)[2]
            if family != name:
                if samples:
                    yield name, heading, samples
                name, heading, samples = family, [], []
            heading.append(line)
        elif line and not line.startswith("#"):
            samples.append(line)
    if samples:
        yield name, heading, samples


def _labelled(line: str, process: str) -> str:
    match = _SAMPLE.match(line)
    if match is None:
        return line
    name, brace, rest = match.groups()
    if brace is None:
        return f'{name}{{process="{process}"}}{rest}'
    comma = "" if rest.startswith("}") else ","
    return f'{name}{{process="{process}"{comma}{rest}'
