"""The sections of a text model's manifest. A model that resolved for a task has those that the task needs."""

from engines.manifest import Classify, Embed, Manifest
from engines.sections.text import TextInput
from services.chassis.models import LoadedModel


def manifest_of(model: LoadedModel) -> Manifest:
    """The whole of it."""
    assert model.manifest is not None  # noqa: S101  # A model without one never resolves.
    return model.manifest


def text_of(model: LoadedModel) -> TextInput:
    """How texts become its inputs."""
    text = manifest_of(model).text
    assert text is not None  # noqa: S101  # Manifests of text models are refused without it.
    return text


def embed_of(model: LoadedModel) -> Embed:
    """Where its embeddings are."""
    embed = manifest_of(model).embed
    assert embed is not None  # noqa: S101  # Manifests with the task 'embed' are refused without it.
    return embed


def classify_of(model: LoadedModel) -> Classify:
    """Where its scores are, and what they mean."""
    classify = manifest_of(model).classify
    assert classify is not None  # noqa: S101  # Manifests with the task 'classify' are refused without it.
    return classify
