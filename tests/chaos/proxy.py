"""A TCP proxy that is slow, cuts connections, or lets them hang; in a thread of its own."""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import suppress

from streamseg.services.service import LOOPBACK, free_port

CHUNK = 64 * 1024


class Proxy:
    """Forwards connections to a port on this machine."""

    def __init__(self, target: int, seed: int) -> None:
        self.port = free_port()
        self.delay = 0.0
        """Seconds that each chunk takes longer."""
        self.hanging = False
        """Whether nothing is forwarded, though connections stay open."""
        self._target = target
        self._dice = random.Random(seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        self._ready.wait()

    def cut(self, share: float) -> None:
        """Reset a share of the open connections."""
        self._loop.call_soon_threadsafe(self._cut, share)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _cut(self, share: float) -> None:
        for writer in list(self._writers):
            if self._dice.random() < share:
                writer.transport.abort()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        self._ready.set()
        await self._stopping.wait()
        server.close()
        self._cut(1.1)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        for one in (writer, back):
            one.transport.abort()
            self._writers.discard(one)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            while self.hanging:
                await asyncio.sleep(0.05)
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError
