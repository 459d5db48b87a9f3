"""kube-apiserver stand-in: a small TLS server that answers like one, and on demand fails like one.

Run as `python -m exlb_fab.lab.apiserver --address 0.0.0.0 --port 6443 --cert F --key F --hostname lb1 --control FILE`.
The control file has one word, the mode, and is read anew for every connection and request:

    ok            /readyz /healthz /livez 200 `ok`, /hostname 200, /watch a line every second, / 403, others 404
    unhealthy     500 on the health paths
    unauthorized  401 on every path
    hung          connections are accepted, and neither a handshake nor a request is answered

Only the standard library: it starts fast, and is measured by what probes it and not by itself.
"""

import argparse
import asyncio
import json
import os
import resource
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from exlb_fab.lab.layout import APISERVER_MODES, APISERVER_PORT

SERVER = "kube-apiserver stand-in"
WATCH_LIMIT_S = 600

_HEALTH_PATHS = ("/readyz", "/healthz", "/livez")
_IDLE_LIMIT_S = 900
_HEAD_LIMIT_BYTES = 16 * 1024
_HUNG_POLL_S = 0.1


class Control:
    """The mode that the control file asks for, right now."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mode(self) -> str:
        """Return the mode; a file that is missing or says something else means `ok`."""
        try:
            word = self._path.read_text().strip()
        except OSError:
            return "ok"
        return word if word in APISERVER_MODES else "ok"


def answer(mode: str, path: str, hostname: str) -> tuple[HTTPStatus, str, bytes]:
    """Return status, content type and body for a request in a mode that answers."""
    if mode == "unauthorized":
        return _refusal(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")
    if path in _HEALTH_PATHS:
        if mode == "unhealthy":
            return (
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "text/plain; charset=utf-8",
                b"[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n",
            )
        return HTTPStatus.OK, "text/plain; charset=utf-8", b"ok"
    if path == "/hostname":
        return HTTPStatus.OK, "text/plain; charset=utf-8", hostname.encode()
    if path == "/":
        message = 'forbidden: User "system:anonymous" cannot get path "/"'
        return _refusal(HTTPStatus.FORBIDDEN, "Forbidden", message)
    return _refusal(HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource")


def _refusal(status: HTTPStatus, reason: str, message: str) -> tuple[HTTPStatus, str, bytes]:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": int(status),
    }
    return status, "application/json", json.dumps(body).encode()


class StandIn:
    """The server; `serve` runs until it is cancelled."""

    def __init__(self, *, context: ssl.SSLContext, hostname: str, control: Control) -> None:
        self._context = context
        self._hostname = hostname
        self._control = control
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections from a listening socket for ever."""
        loop = asyncio.get_running_loop()
        listener.settimeout(0)
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:
                # Out of descriptors, most likely: those who wait get their turn.
                await asyncio.sleep(_HUNG_POLL_S)
                continue
            task = asyncio.create_task(self._connection(connection))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _connection(self, connection: socket.socket) -> None:
        """Serve one accepted connection to its end."""
        # Checks that only connect, clients that go away, garbage: a server has nothing to say about them.
        with suppress(OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            reader, writer = await self._handshake(connection)
            try:
                while await self._request(reader, writer):
                    pass
            finally:
                writer.close()
            await writer.wait_closed()

    async def _handshake(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the streams inside TLS; a hung server leaves the first byte of the client in the socket."""
        try:
            connection.settimeout(0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll = select.poll()
            poll.register(connection, select.POLLRDHUP)
            await self._while_hung(lambda: bool(poll.poll(0)))
        except BaseException:
            connection.close()
            raise
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_HEAD_LIMIT_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        # From here on the transport closes the socket.
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=10, ssl_shutdown_timeout=2
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _while_hung(self, gone: Callable[[], bool]) -> None:
        """Return when the mode is another one; raise EOFError when the peer is gone."""
        while self._control.mode() == "hung":
            if gone():
                raise EOFError
            await asyncio.sleep(_HUNG_POLL_S)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is to be closed."""
        async with asyncio.timeout(_IDLE_LIMIT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        request, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = request.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if length := int(headers.get("content-length", "0")):
            await reader.readexactly(length)
        await self._while_hung(reader.at_eof)
        mode = self._control.mode()
        path = target.partition("?")[0]
        if path == "/watch" and mode != "unauthorized":
            await self._watch(reader, writer)
            return False
        wanted = headers.get("connection", "").lower()
        keep = wanted == "keep-alive" or (version == "HTTP/1.1" and wanted != "close")
        status, kind, body = answer(mode, path, self._hostname)
        writer.write(_head(status, kind, f"Content-Length: {len(body)}", keep=keep))
        if method != "HEAD":
            writer.write(body)
        await writer.drain()
        return keep

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stream a line every second until the limit; a hung server streams nothing."""
        writer.write(_head(HTTPStatus.OK, "application/json", "Transfer-Encoding: chunked", keep=False))
        deadline = time.monotonic() + WATCH_LIMIT_S
        number = 0
        while time.monotonic() < deadline:
            await self._while_hung(reader.at_eof)
            number += 1
            event = {"type": "BOOKMARK", "object": {"kind": "Tick", "number": number, "host": self._hostname}}
            line = json.dumps(event).encode() + b"\n"
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await writer.drain()
            await asyncio.sleep(1)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _head(status: HTTPStatus, kind: str, length: str, *, keep: bool) -> bytes:
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Server: {SERVER}",
        f"Content-Type: {kind}",
        length,
        "Cache-Control: no-cache, private",
        f"Connection: {'keep-alive' if keep else 'close'}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket; several seconds of connections may wait in it."""
    return socket.create_server((address, port), backlog=1024)


async def _run(stand_in: StandIn, listener: socket.socket, watched: int | None) -> None:
    """Serve until the watched process (a pidfd) has ended."""
    loop = asyncio.get_running_loop()
    # What a broken handshake leaves behind in asyncio is of no interest to anybody.
    loop.set_exception_handler(lambda _loop, _context: None)
    serving = asyncio.create_task(stand_in.serve(listener))
    if watched is not None:
        loop.add_reader(watched, serving.cancel)
    await asyncio.wait([serving])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stand-in as the command line says; ends when the watched process does."""
    parser = argparse.ArgumentParser(prog="python -m exlb_fab.lab.apiserver", description=SERVER)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=APISERVER_PORT)
    parser.add_argument("--cert", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--hostname", required=True, help="what /hostname answers")
    parser.add_argument("--control", type=Path, required=True, help=f"file with one of: {', '.join(APISERVER_MODES)}")
    parser.add_argument("--watch-pid", type=int, help="end when this process ends")
    options = parser.parse_args(arguments)

    watched = None
    if options.watch_pid is not None:
        try:
            watched = os.pidfd_open(options.watch_pid)
        except ProcessLookupError:
            return 0
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    stand_in = StandIn(context=context, hostname=options.hostname, control=Control(options.control))
    with listen(options.address, options.port) as listener:
        asyncio.run(_run(stand_in, listener, watched))
    return 0


if __name__ == "__main__":
    sys.exit(main())
