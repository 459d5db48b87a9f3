"""Backend stand-in: a plain HTTP server at any port, which tells who it takes its client for.

Run as `python -m exlb_fab.lab.backend --address 0.0.0.0 --port 30080 --hostname lb1`. A connection may begin with a
PROXY protocol header, version 1 or 2. Its first request, whatever it is, is answered with 200 and one JSON object,
and the connection is closed:

    node    the hostname
    peer    the address that the connection comes from
    client  the address that the PROXY header says; null without a header, or if it says none (UNKNOWN, LOCAL)

Source of the header: haproxy's doc/proxy-protocol.txt, 2.1 and 2.2.
"""

import argparse
import json
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import BinaryIO, cast

from exlb_fab.lab import serving

SERVER = "backend stand-in"

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1 = b"PROXY "
_V1_LIMIT_BYTES = 107
_PROXY_COMMAND = 0x21  # version 2, and not LOCAL
_ADDRESS_BYTES = {1: 4, 2: 16}  # by address family: IPv4, IPv6
_LINE_LIMIT_BYTES = 16 * 1024
_IDLE_LIMIT_S = 60


def read_opening(stream: BinaryIO) -> tuple[str | None, bytes]:
    """Read a PROXY header if there is one; return the client that it says, and what was read beyond it.

    Raises EOFError where the stream ends before, ValueError on a header that is none.
    """
    # Neither header is shorter, nor is any HTTP request.
    start = _exactly(stream, len(_SIGNATURE))
    if start == _SIGNATURE:
        return _version_2(stream), b""
    if start.startswith(_V1):
        return _version_1(start + stream.readline(_V1_LIMIT_BYTES - len(start))), b""
    return None, start


def _version_1(line: bytes) -> str | None:
    words = line.decode("ascii").split(" ")
    if not line.endswith(b"\r\n") or len(words) < 2:
        raise ValueError(f"no PROXY header: {line!r}")
    return str(ip_address(words[2])) if words[1].strip() in ("TCP4", "TCP6") else None


def _version_2(stream: BinaryIO) -> str | None:
    command, family, length = struct.unpack("!BBH", _exactly(stream, 4))
    addresses = _exactly(stream, length)
    size = _ADDRESS_BYTES.get(family >> 4)
    if command != _PROXY_COMMAND or size is None:
        return None
    return str(ip_address(addresses[:size]))


def _exactly(stream: BinaryIO, count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise EOFError
    return found


def serve(hostname: str, connection: socket.socket) -> None:
    """Serve one accepted connection to its end."""
    # Checks that only connect, clients that go away, garbage: a server has nothing to say about them.
    with connection, suppress(OSError, EOFError, ValueError):
        connection.settimeout(_IDLE_LIMIT_S)
        peer = connection.getpeername()[0]
        with cast("BinaryIO", connection.makefile("rb")) as stream:
            client, rest = read_opening(stream)
            line = rest + stream.readline(_LINE_LIMIT_BYTES)
            while line.strip():
                line = stream.readline(_LINE_LIMIT_BYTES)
        connection.sendall(answer(hostname, peer, client))


def answer(hostname: str, peer: str, client: str | None) -> bytes:
    """Return the answer to any request."""
    body = json.dumps({"node": hostname, "peer": peer, "client": client}).encode() + b"\n"
    status = HTTPStatus.OK
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Server: {SERVER}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stand-in as the command line says; ends when the watched process does."""
    parser = argparse.ArgumentParser(prog="python -m exlb_fab.lab.backend", description=SERVER)
    serving.add_arguments(parser)
    options = parser.parse_args(arguments)
    return serving.run(options, partial(serve, options.hostname))


if __name__ == "__main__":
    sys.exit(main())
