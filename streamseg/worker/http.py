"""`/metrics`, `/livez` and `/readyz` on one port, on the loopback interface unless told otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from streamseg.core.errors import InputError

MOST_CONNECTIONS = 64
"""Open at once. One more closes the oldest: a page takes milliseconds, so that one idles, or is slow on purpose."""


class HttpServer:
    """The worker's small web server. `problems` says why it is not ready, `alive` whether it still turns."""

    def __init__(
        self, registry: CollectorRegistry, problems: Callable[[], list[str]], alive: Callable[[], bool]
    ) -> None:
        self._registry = registry
        self._problems = problems
        self._alive = alive
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listens. Raises InputError if the address is taken."""
        app = web.Application(client_max_size=1024)
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        try:
            self._listening = await asyncio.get_running_loop().create_server(self._accept, host, port)
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another --http") from error

    def _accept(self) -> asyncio.BaseProtocol:
        """A new connection: whoever opens many and says nothing takes neither our files nor anybody's place."""
        assert self._runner is not None
        assert self._runner.server is not None
        connections = [each for each in self._runner.server.connections if each.transport is not None]
        for oldest in connections[: max(0, len(connections) - MOST_CONNECTIONS + 1)]:
            oldest.force_close()
        return self._runner.server()

    async def stop(self) -> None:
        """Stops listening."""
        if self._listening is not None:
            self._listening.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._alive() else web.Response(text="stuck\n", status=503)

    async def _readyz(self, _: web.Request) -> web.Response:
        problems = self._problems()
        return web.Response(text="\n".join(problems or ["ok"]) + "\n", status=503 if problems else 200)
