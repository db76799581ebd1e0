"""What lies in the model repository, looked at often and cheaply: names, and the state of some folders' files."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

#: Of each file: where it is, its size in bytes, when it was written, which file it is.
Fingerprint = tuple[tuple[str, int, int, int], ...]


def names(repository: Path) -> frozenset[str]:
    """Every model folder; none when the repository cannot be read."""
    try:
        with os.scandir(repository) as items:
            return frozenset(item.name for item in items if not item.name.startswith(".") and item.is_dir())
    except OSError:
        return frozenset()


def fingerprints(repository: Path, chosen: Collection[str]) -> dict[str, Fingerprint]:
    """The state of the files of these models; it differs whenever one of them was written or replaced."""
    return {name: tuple(sorted(_files(repository / name, "", 2))) for name in chosen}


def of_version(found: Fingerprint, version: str) -> Fingerprint:
    """What one version is made of: its own folder's files and those that all versions share."""
    return tuple(entry for entry in found if "/" not in entry[0] or entry[0].startswith(f"{version}/"))


def versions(found: Fingerprint) -> frozenset[str]:
    """The version folders that have files in them."""
    folders = {entry[0].partition("/")[0] for entry in found if "/" in entry[0]}
    return frozenset(folder for folder in folders if folder.isascii() and folder.isdigit() and folder[0] != "0")


def _files(folder: Path, below: str, depth: int) -> Iterator[tuple[str, int, int, int]]:
    try:
        with os.scandir(folder) as items:
            for item in items:
                if item.is_dir():
                    if depth > 1:
                        yield from _files(folder / item.name, f"{below}{item.name}/", depth - 1)
                    continue
                facts = item.stat()
                yield (f"{below}{item.name}", facts.st_size, facts.st_mtime_ns, facts.st_ino)
    except OSError:
        return  # It went away meanwhile, which is a change too.
