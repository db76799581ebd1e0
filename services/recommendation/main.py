"""The recommendation service composed: models, tables, servicers. `run` is the whole process."""

import grpc

from services.chassis import domain
from services.chassis.domain import Parts
from services.chassis.server import Options, Service
from services.chassis.settings import Settings
from services.chassis.telemetry import Telemetry
from services.recommendation import servicer
from services.recommendation.recommenders import Recommenders
from services.recommendation.servicer import RecommendationServicer

NAME = "recommendation"


def compose(settings: Settings, telemetry: Telemetry, mesh: grpc.aio.Channel | None = None) -> Parts:
    """Put the service together. `mesh`: where stream items for models of other services go; None = nowhere."""
    mine = domain.section(settings, NAME)
    host = domain.host_for(settings, NAME, telemetry)
    recommendation = RecommendationServicer(Recommenders(host), mine.max_candidates)
    services = (Service(servicer.SERVICE, recommendation), domain.tensor_service(host, mesh))
    return Parts(services, host)


async def run(settings: Settings, options: Options, mesh: str = "") -> None:
    """Serve until SIGTERM. `mesh`: address of the internal listener, "" = none. Raises StartError, ConfigError."""
    await domain.run(compose, settings, options, mesh)
