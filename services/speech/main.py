"""The speech service composed: models, decoding threads, servicers. `run` is the whole process."""

import grpc

from services.chassis import domain
from services.chassis.domain import Parts
from services.chassis.server import Options, Service
from services.chassis.settings import Settings
from services.chassis.telemetry import Telemetry
from services.speech import servicer
from services.speech.mail import Streams
from services.speech.networks import Networks
from services.speech.recognition import Unpacker
from services.speech.servicer import SpeechServicer

NAME = "speech"


def compose(settings: Settings, telemetry: Telemetry, mesh: grpc.aio.Channel | None = None) -> Parts:
    """Put the service together. `mesh`: where stream items for models of other services go; None = nowhere."""
    mine = domain.section(settings, NAME)
    host = domain.host_for(settings, NAME, telemetry)
    unpacker = Unpacker(mine.cores)
    speech = SpeechServicer(Networks(host), unpacker, Streams(mine.max_streams), mine.max_audio_seconds)
    services = (Service(servicer.SERVICE, speech), domain.tensor_service(host, mesh))
    return Parts(services, host, unpacker.close)


async def run(settings: Settings, options: Options, mesh: str = "") -> None:
    """Serve until SIGTERM. `mesh`: address of the internal listener, "" = none. Raises StartError, ConfigError."""
    await domain.run(compose, settings, options, mesh)
