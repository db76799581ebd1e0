"""The nlp service composed: models, tokenizers, servicers. `run` is the whole process."""

import grpc

from services.chassis import domain
from services.chassis.domain import Parts
from services.chassis.server import Options, Service
from services.chassis.settings import Settings
from services.chassis.telemetry import Telemetry
from services.nlp import servicer
from services.nlp.classifying import Classifier
from services.nlp.servicer import NlpServicer
from services.nlp.texts import TextRunner
from services.nlp.tokenizing import Tokenizers

NAME = "nlp"


def compose(settings: Settings, telemetry: Telemetry, mesh: grpc.aio.Channel | None = None) -> Parts:
    """Put the service together. `mesh`: where stream items for models of other services go; None = nowhere."""
    mine = domain.section(settings, NAME)
    host = domain.host_for(settings, NAME, telemetry)
    tokenizers = Tokenizers(mine.cores)
    runner = TextRunner(host, tokenizers, mine.max_text_bytes)
    nlp = NlpServicer(host, runner, Classifier(host, runner), mine.max_items)
    services = (Service(servicer.SERVICE, nlp), domain.tensor_service(host, mesh))
    return Parts(services, host, tokenizers.close)


async def run(settings: Settings, options: Options, mesh: str = "") -> None:
    """Serve until SIGTERM. `mesh`: address of the internal listener, "" = none. Raises StartError, ConfigError."""
    await domain.run(compose, settings, options, mesh)
