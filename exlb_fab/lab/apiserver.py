"""kube-apiserver stand-in: a small TLS server that answers like one, and on demand fails like one.

Run as `python -m exlb_fab.lab.apiserver --address 0.0.0.0 --port 6443 --cert F --key F --hostname lb1 --control FILE`.
The control file has one word, the mode, and is read anew for every connection and request:

    ok            /readyz /healthz /livez 200 `ok`, /hostname 200, /watch a line every second, / 403, others 404
    unhealthy     500 on the health paths
    unauthorized  401 on every path
    foreign       404 on every path, in words that are no apiserver's
    hung          connections are accepted, and neither a handshake nor a request is answered

Only the standard library: it starts fast, and is measured by what probes it and not by itself.
"""

import argparse
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, cast

from exlb_fab.lab import serving
from exlb_fab.lab.layout import APISERVER_MODES

SERVER = "kube-apiserver stand-in"
WATCH_LIMIT_S = 600

_HEALTH_PATHS = ("/readyz", "/healthz", "/livez")
_IDLE_LIMIT_S = 900
_HANDSHAKE_LIMIT_S = 10
_LINE_LIMIT_BYTES = 16 * 1024
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
    if mode == "foreign":
        return HTTPStatus.NOT_FOUND, "text/html", b"<html><h1>Not Found</h1></html>"
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
    """The server, as it answers on one connection."""

    def __init__(self, *, context: ssl.SSLContext, hostname: str, control: Control) -> None:
        self._context = context
        self._hostname = hostname
        self._control = control

    def serve(self, connection: socket.socket) -> None:
        """Serve one accepted connection to its end."""
        # Checks that only connect, clients that go away, garbage: a server has nothing to say about them.
        with connection, suppress(OSError, EOFError, ValueError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._while_hung(connection)
            connection.settimeout(_HANDSHAKE_LIMIT_S)
            with self._context.wrap_socket(connection, server_side=True) as inside:
                inside.settimeout(_IDLE_LIMIT_S)
                with cast("BinaryIO", inside.makefile("rb")) as requests:
                    while self._request(inside, requests):
                        pass

    def _while_hung(self, connection: socket.socket) -> None:
        """Return when the mode is another one; raise EOFError when the peer is gone."""
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        while self._control.mode() == "hung":
            if poll.poll(_HUNG_POLL_S * 1000):
                raise EOFError

    def _request(self, connection: ssl.SSLSocket, requests: BinaryIO) -> bool:
        """Answer one request; False when the connection is to be closed."""
        lines = list(iter(lambda: requests.readline(_LINE_LIMIT_BYTES).decode("latin-1").rstrip("\r\n"), ""))
        if not lines:
            return False
        method, target, version = lines[0].split(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        requests.read(int(headers.get("content-length", "0")))
        self._while_hung(connection)
        mode = self._control.mode()
        path = target.partition("?")[0]
        if path == "/watch" and mode not in ("unauthorized", "foreign"):
            self._watch(connection)
            return False
        wanted = headers.get("connection", "").lower()
        keep = wanted == "keep-alive" or (version == "HTTP/1.1" and wanted != "close")
        status, kind, body = answer(mode, path, self._hostname)
        head = _head(status, kind, f"Content-Length: {len(body)}", keep=keep)
        connection.sendall(head if method == "HEAD" else head + body)
        return keep

    def _watch(self, connection: ssl.SSLSocket) -> None:
        """Stream a line every second until the limit; a hung server streams nothing."""
        connection.sendall(_head(HTTPStatus.OK, "application/json", "Transfer-Encoding: chunked", keep=False))
        deadline = time.monotonic() + WATCH_LIMIT_S
        number = 0
        while time.monotonic() < deadline:
            self._while_hung(connection)
            number += 1
            event = {"type": "BOOKMARK", "object": {"kind": "Tick", "number": number, "host": self._hostname}}
            line = json.dumps(event).encode() + b"\n"
            connection.sendall(b"%x\r\n%b\r\n" % (len(line), line))
            time.sleep(1)
        connection.sendall(b"0\r\n\r\n")


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stand-in as the command line says; ends when the watched process does."""
    parser = argparse.ArgumentParser(prog="python -m exlb_fab.lab.apiserver", description=SERVER)
    serving.add_arguments(parser)
    parser.add_argument("--cert", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True, help=f"file with one of: {', '.join(APISERVER_MODES)}")
    options = parser.parse_args(arguments)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    stand_in = StandIn(context=context, hostname=options.hostname, control=Control(options.control))
    return serving.run(options, stand_in.serve)


if __name__ == "__main__":
    sys.exit(main())
