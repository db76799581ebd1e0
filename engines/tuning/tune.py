"""`headrace tune`: measure the arrangements of a model on this machine, and keep the best of each version."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.backends import MODEL_FILE
from engines.manifest import Instances
from engines.quantization import lineage
from engines.repository import Entry, Repository
from engines.tuning import machine, record
from engines.tuning.measure import Measured, Plan, best, measure
from engines.zoo.errors import ZooError

#: Other work that takes more than this share of the cores is told.
_QUIET: Final = 0.15


@dataclass(frozen=True, slots=True)
class Tuned:
    """Every arrangement that was measured, the best of each version, and sizes of the inputs' open dimensions.

    `precisions`: of each version. `notes`: what the user should know, one line each.
    """

    measured: tuple[Measured, ...]
    best: Mapping[int, Measured]
    precisions: Mapping[int, str]
    sizes: Mapping[str, int]
    notes: tuple[str, ...]


def find(directory: Path, model: str) -> tuple[Entry, str]:
    """The folder of 'name' or 'name@version', and that version or "". Raises ConfigError, ZooError."""
    name, _, version = model.partition("@")
    entries = {entry.name: entry for entry in Repository(directory).scan()}
    if name not in entries:
        known = ", ".join(entries) or "it is empty"
        raise ZooError(f"no model '{name}' in {directory} ({known}): run 'headrace models pull {name}'")
    return entries[name], version


def plan(entry: Entry, cores: int, version: str = "") -> Plan:
    """What there is to measure: one version, or all. Raises ConfigError, NoSuchVersion, ZooError."""
    if entry.error is not None or entry.manifest is None:
        raise entry.error or ZooError(f"{entry.folder}: has no manifest")
    if entry.manifest.backend in ("fake", "tensorrt"):
        raise ZooError(
            f"{entry.folder}: there is nothing to tune: its backend is '{entry.manifest.backend}', not ONNX Runtime"
        )
    available = machine.cores()
    if not 1 <= cores <= available:
        raise ZooError(f"--cores {cores}: this process may use 1 to {available}")
    versions = (entry.resolve(version),) if version else entry.versions
    for number in versions:
        if not (entry.folder / str(number) / MODEL_FILE).is_file():
            raise ZooError(f"{entry.folder / str(number) / MODEL_FILE}: there is no such file; put the model there")
        record.check_writable(entry.folder / str(number))
    return Plan(entry.folder, entry.manifest, versions, cores)


def tune(wish: Plan) -> Tuned:
    """Measure, and keep the best arrangement of each version beside it. Raises ZooError."""
    done = measure(wish)
    measured = done.measured
    winners = {
        number: best([item for item in measured if item.arrangement.version == number]) for number in wish.versions
    }
    for number, winner in winners.items():
        folder, found = wish.folder / str(number), winner.arrangement
        tuning = record.Tuning(
            machine=machine.fingerprint(),
            model_bytes=(folder / MODEL_FILE).stat().st_size,
            cores=wish.cores,
            instances=found.instances,
            threads=found.threads,
            rows=found.rows,
            rate=round(winner.rate, 2),
        )
        record.write(folder, tuning)
    precisions = {number: _precision(wish, number) for number in wish.versions}
    notes = _notes(wish, winners, precisions)
    if done.others > _QUIET:
        notes.append(
            f"other work took {done.others:.0%} of the machine's cores meanwhile, so these figures are doubtful:"
            " tune again when it is quiet"
        )
    return Tuned(tuple(measured), winners, precisions, done.sizes, tuple(notes))


def _precision(wish: Plan, version: int) -> str:
    found = lineage.read(wish.folder / str(version))
    return found.precision if found is not None else "as made"


def _notes(wish: Plan, winners: Mapping[int, Measured], precisions: Mapping[int, str]) -> list[str]:
    notes: list[str] = []
    fixed: Instances = wish.manifest.instances
    layout = {(item.arrangement.instances, item.arrangement.threads) for item in winners.values()}
    if fixed.count and layout != {(fixed.count, fixed.threads)}:
        notes.append(
            f"model.toml sets instances.count = {fixed.count}, threads = {fixed.threads}, which wins:"
            " write count = 0, threads = 1 to have the tuning used"
        )
    elif not fixed.count and fixed.threads > 1:
        notes.append(
            f"model.toml sets instances.threads = {fixed.threads}, which wins: write 1 to have the tuning used"
        )
    most = wish.manifest.batching.max_rows
    least = min(item.arrangement.rows for item in winners.values())
    if least < most:
        notes.append(f"batches of more than {least} rows gain nothing here; batching.max_rows is {most}")
    if len(winners) > 1:
        fastest = max(winners.values(), key=lambda item: item.rate)
        default = winners[max(winners)]
        if fastest is not default:
            number = fastest.arrangement.version
            notes.append(
                f"version {number} ({precisions[number]}) computes {fastest.rate / default.rate:.2f} times as many rows"
                f" as the default, version {max(winners)}"
            )
    return notes


def with_time(wish: Plan, seconds: float, seed: int, told: Callable[[float], None]) -> Plan:
    """The same measurement, taking about so many seconds; `told` hears how far it is. Raises ZooError."""
    if not 0.1 <= seconds <= 3600:
        raise ZooError(f"--seconds {seconds:g}: must be 0.1 to 3600")
    return dataclasses.replace(wish, seconds=seconds, seed=seed, told=told)
