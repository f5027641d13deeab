"""A PostgreSQL server behind a line with faults on order: slow, cut, reset, or deaf at a COMMIT.

The line knows where requests and answers end, so that a fault has a number and can be met again:
the n-th since it was ordered, over all connections. Where within one it strikes, a seed decides.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from threading import Event, Thread
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from support.closing import Closing

Kind = Literal["delay", "cut", "reset", "swallow"]
"""What happens: a wait, both ends closed, both ends reset (RST), or a COMMIT that arrives and whose
answer does not."""

Part = Literal["request", "answer", "commit"]

DELAY_SECONDS = 0.005

_PROTOCOL = struct.pack(">i", 196_608)  # 3.0; others ask for encryption, or cancel a statement
_CANCEL = struct.pack(">i", 80_877_102)
_GOES_ON = b"PBDEC"  # what a client says before it waits for an answer
_ENDS_REQUEST = b"QS"
_IN_AN_ANSWER = b"TDC123tnsIE"
_READY = b"Z"
_BEHIND_EVERY_BYTE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to happen, and when.

    Attributes:
        part: what is counted; ``swallow`` counts commits, whatever is said here.
        at: which of them it strikes, from 1; a delay strikes that one and all behind it.
        stays_down: from then on every connection is closed, the others with it.
    """

    kind: Kind
    part: Part = "request"
    at: int = 1
    stays_down: bool = False


@dataclass(slots=True)
class _Order:
    """A fault in force; used by the line's thread alone."""

    fault: Fault
    chance: Random
    seen: Counter[Part] = field(default_factory=Counter)
    struck: Event = field(default_factory=Event)

    def strikes(self, part: Part) -> bool:
        """Count one more *part* and tell whether the fault is meant for it."""
        self.seen[part] += 1
        number, wanted = self.seen[part], self.fault
        if part != ("commit" if wanted.kind == "swallow" else wanted.part):
            return False
        is_it = number >= wanted.at if wanted.kind == "delay" else number == wanted.at
        if is_it:
            self.struck.set()
        return is_it

    @property
    def is_down(self) -> bool:
        """Whether connections are refused."""
        return self.fault.stays_down and self.struck.is_set()


class _BrokenLine(Exception):
    """The fault has closed this connection."""


@dataclass(slots=True, eq=False)
class _Link:
    """One connection: the client's end and the server's.

    Attributes:
        asked: requests so far; the first is the beginning of the connection.
        answered: how many of them.
        deaf_from: the request whose answer is not passed on.
    """

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    asked: int = 1
    answered: int = 0
    deaf_from: int | None = None

    def hang_up(self, *, reset: bool = False) -> None:
        """Close both ends; what was written before still arrives, if it is no reset."""
        for end in (self.client, self.server):
            if reset and not end.is_closing():
                raw = end.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BEHIND_EVERY_BYTE)
                end.transport.abort()
            else:
                end.close()


class FaultProxy(Closing):
    """A line to the server of *url*, without faults until one is ordered.

    Runs in a thread of its own from construction until `close`.

    Args:
        url: an address of the server; `through` leads to any database of it.
    """

    def __init__(self, url: str, *, seed: int = 0) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 0)
        self._seed = seed
        self._order: _Order | None = None
        self._links: set[_Link] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.daemon = True
        self._thread.start()

    def close(self) -> None:
        """Hang up and end the thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()
            self._loop.close()

    def through(self, url: str) -> str:
        """The same database by way of this line."""
        parts = urlsplit(url)
        assert (parts.hostname, parts.port) == self._server
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{self._port}"))

    def order(self, fault: Fault) -> None:
        """Let *fault* happen from now on, in place of the one before; counting begins anew."""
        self._order = _Order(fault, Random(f"{self._seed} {fault}"))

    def mend(self) -> None:
        """Let everything pass again."""
        self._order = None

    @property
    def has_struck(self) -> bool:
        """Whether the fault that is in force has happened."""
        return self._order is not None and self._order.struck.is_set()

    def seen(self, part: Part) -> int:
        """How many have passed since the fault in force was ordered."""
        return self._order.seen[part] if self._order is not None else 0

    # --- in the thread ------------------------------------------------------------------------

    async def _run(self) -> None:
        async with await asyncio.start_server(self._accept, sock=self._listener):
            await self._over.wait()
        for link in list(self._links):
            link.hang_up(reset=True)
        await asyncio.gather(*self._talks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        # asyncio does so only where the socket names its protocol, and this listener's do not.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._talks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._talk(reader, writer)
        finally:
            writer.close()
            self._talks.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._order is not None and self._order.is_down:
            return
        beginning = await _beginning(reader, writer)
        from_server, server = await asyncio.open_connection(*self._server)
        link = _Link(writer, server)
        self._links.add(link)
        try:
            server.write(beginning)
            talks = (self._ask(link, reader), self._answer(link, from_server))
            tasks = [asyncio.ensure_future(talk) for talk in talks]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            link.hang_up()
            for task in tasks:
                with suppress(OSError, asyncio.IncompleteReadError, _BrokenLine):
                    await task
        finally:
            link.hang_up()
            self._links.discard(link)

    async def _ask(self, link: _Link, client: asyncio.StreamReader) -> None:
        """Forward what the client says, a request at a time."""
        request = b""
        while True:
            message = await _message(client)
            request += message
            if message[:1] in _GOES_ON:
                continue
            if message[:1] in _ENDS_REQUEST:
                link.asked += 1
                await self._meet("request", request, link, link.server)
                if b"COMMIT" in request and self._order and self._order.strikes("commit"):
                    link.deaf_from = link.asked
            link.server.write(request)
            request = b""
            await link.server.drain()

    async def _answer(self, link: _Link, server: asyncio.StreamReader) -> None:
        """Forward what the server says, an answer at a time."""
        answer = b""
        while True:
            try:
                message = await _message(server)
            except (OSError, asyncio.IncompleteReadError):
                link.client.write(answer)  # why it hangs up
                raise
            answer += message
            if message[:1] in _IN_AN_ANSWER:
                continue
            if message[:1] == _READY:
                link.answered += 1
                if link.deaf_from is not None and link.answered >= link.deaf_from:
                    self._break(link, reset=False)
                if link.answered > 1:
                    await self._meet("answer", answer, link, link.client)
            link.client.write(answer)
            answer = b""
            await link.client.drain()

    async def _meet(
        self, part: Part, message: bytes, link: _Link, receiver: asyncio.StreamWriter
    ) -> None:
        order = self._order
        if order is None or not order.strikes(part):
            return
        if order.fault.kind == "delay":
            await asyncio.sleep(DELAY_SECONDS)
            return
        receiver.write(message[: order.chance.randrange(len(message))])
        self._break(link, reset=order.fault.kind == "reset")

    def _break(self, link: _Link, *, reset: bool) -> None:
        is_down = self._order is not None and self._order.is_down
        for one in list(self._links) if is_down else [link]:
            one.hang_up(reset=reset)
        raise _BrokenLine


async def _beginning(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The client's first message; there is no encryption to be had on this line."""
    while True:
        head = await reader.readexactly(8)
        body = await reader.readexactly(struct.unpack(">i", head[:4])[0] - 8)
        if head[4:] in (_PROTOCOL, _CANCEL) or head[4:6] == _PROTOCOL[:2]:
            return head + body
        writer.write(b"N")


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack(">i", head[1:])[0] - 4)
