"""What the mesh answers to methods that no service of it has."""

from collections.abc import Iterable
from typing import Any

import grpc

from services.chassis import errors


class UnknownMeshMethods(grpc.GenericRpcHandler):
    """Refuses with UNIMPLEMENTED and names the services that exist; add it last."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = ", ".join(sorted(services))

    def service(self, handler_call_details: Any) -> Any:
        """Return a handler that refuses without reading a request, so that it suits unary calls and streams."""
        method = handler_call_details.method
        error = errors.ServiceError(
            errors.TABLE["UNKNOWN_METHOD"],
            {"method": errors.quote(method), "services": self._services},
            message=f"{errors.quote(method)} is not served here: this mesh has {self._services}",
        )

        async def refuse(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(error.code, error.message, error.trailers())

        return grpc.stream_stream_rpc_method_handler(refuse)
