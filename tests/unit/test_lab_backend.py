"""The backend stand-in, over real connections on the loopback."""

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from exlb_fab.lab.serving import LISTENS

REQUEST = b"GET /any HTTP/1.1\r\nHost: ingress\r\n\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PORTS = struct.pack("!HH", 40000, 80)
V4 = bytes([198, 51, 100, 7, 198, 51, 100, 100]) + PORTS
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8:0:51::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + PORTS


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def words(port: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "exlb_fab.lab.backend", "--port", str(port), "--hostname", "lb1", *more]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    chosen = free_port()
    with subprocess.Popen(words(chosen), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{LISTENS}\n"
        try:
            yield chosen
        finally:
            process.kill()


def answered(port: int, *parts: bytes) -> tuple[bytes, dict[str, str | None]]:
    """Return the status line and the object that come back for what is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            client.sendall(part)
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
        found: dict[str, str | None] = json.loads(body)
        return head.split(b"\r\n")[0], found


def version_2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses)) + addresses


def test_any_request_is_answered_with_the_name_of_the_node(port: int) -> None:
    for request in (REQUEST, b"GET / HTTP/1.0\r\n\r\n", b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n"):
        assert answered(port, request) == (b"HTTP/1.1 200 OK", {"node": "lb1", "peer": "127.0.0.1", "client": None})


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 198.51.100.7 198.51.100.100 40000 80\r\n", "198.51.100.7"),
        (b"PROXY TCP6 2001:db8:0:51::7 2001:db8::1 40000 80\r\n", "2001:db8:0:51::7"),
        (b"PROXY UNKNOWN\r\n", None),
        (version_2(0x21, 0x11, V4), "198.51.100.7"),
        (version_2(0x21, 0x11, V4 + b"\x03\x00\x04abcd"), "198.51.100.7"),  # a TLV behind the addresses
        (version_2(0x21, 0x21, V6), "2001:db8:0:51::7"),
        (version_2(0x20, 0x00, b""), None),  # LOCAL: a health check
    ],
)
def test_the_client_is_who_the_proxy_header_says(port: int, header: bytes, client: str | None) -> None:
    assert answered(port, header + REQUEST)[1] == {"node": "lb1", "peer": "127.0.0.1", "client": client}
    assert answered(port, header[:9], header[9:], REQUEST)[1]["client"] == client


@pytest.mark.parametrize("opening", [b"", b"PROXY", b"PROXY TCP4 nonsense\r\n", SIGNATURE + b"\x21\x11\x00\x0c12"])
def test_a_header_that_is_none_is_not_answered_and_harms_nobody(port: int, opening: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(opening)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert answered(port, REQUEST)[0] == b"HTTP/1.1 200 OK"


def test_it_ends_with_the_process_that_it_watches() -> None:
    with subprocess.Popen(["sleep", "600"]) as watched:
        watching = words(free_port(), "--watch-pid", str(watched.pid))
        with subprocess.Popen(watching, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{LISTENS}\n"
            assert process.poll() is None
            watched.kill()
            assert process.wait(5) == 0


def test_a_port_that_is_taken_is_said(port: int) -> None:
    done = subprocess.run(words(port), capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode != 0
    assert "Address already in use" in done.stderr
