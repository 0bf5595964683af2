"""A TCP proxy that can be told to refuse connections, or to swallow what they carry."""

import asyncio
import threading
from enum import Enum
from types import TracebackType
from typing import Self


class Way(Enum):
    """What becomes of bytes."""

    OPEN = "open"
    REFUSED = "refused"
    SWALLOWED = "swallowed"


class Proxy:
    """Stands between a client and a server on this machine; runs in a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.refusals = 0
        self._target = (host, port)
        self._way = Way.OPEN
        self._opened = asyncio.Event()
        self._opened.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def be(self, way: Way) -> None:
        """Change the way; refusing also resets the connections that there are."""
        done = threading.Event()

        def change() -> None:
            self._way = way
            if way is Way.SWALLOWED:
                self._opened.clear()
            else:
                self._opened.set()
            if way is Way.REFUSED:
                for writer in list(self._writers):
                    writer.transport.abort()
            done.set()

        self._loop.call_soon_threadsafe(change)
        assert done.wait(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._opened.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way is Way.REFUSED:
            self.refusals += 1
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65_536):
                await self._opened.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one end is gone; the other is told so below
        finally:
            self._writers.discard(writer)
            writer.close()
