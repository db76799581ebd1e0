"""The vision service composed: models, decoder, servicers. `run` is the whole process."""

import grpc

from services.chassis import domain
from services.chassis.domain import Parts
from services.chassis.server import Options, Service
from services.chassis.settings import Settings
from services.chassis.telemetry import Telemetry
from services.vision import servicer
from services.vision.pictures import Decoder, PictureRunner
from services.vision.reading import PageReader
from services.vision.reading_answers import ReadingAnswers
from services.vision.reading_models import NetworkBook
from services.vision.servicer import VisionServicer

NAME = "vision"


def compose(settings: Settings, telemetry: Telemetry, mesh: grpc.aio.Channel | None = None) -> Parts:
    """Put the service together. `mesh`: where stream items for models of other services go; None = nowhere."""
    mine = domain.section(settings, NAME)
    host = domain.host_for(settings, NAME, telemetry)
    decoder = Decoder(mine.cores)
    reader = PageReader(host, mine.cores, mine.max_pixels)
    reading = ReadingAnswers(NetworkBook(host), reader)
    vision = VisionServicer(host, PictureRunner(host, decoder, mine.max_pixels), reading, mine.max_items)
    services = (Service(servicer.SERVICE, vision), domain.tensor_service(host, mesh))

    def close() -> None:
        decoder.close()
        reader.close()

    return Parts(services, host, close)


async def run(settings: Settings, options: Options, mesh: str = "") -> None:
    """Serve until SIGTERM. `mesh`: address of the internal listener, "" = none. Raises StartError, ConfigError."""
    await domain.run(compose, settings, options, mesh)
