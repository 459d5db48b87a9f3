"""The bastion's own request, to servers on the loopback, and its question by ARP, to hosts that are not there."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

import pytest

from exlb_fab import client
from exlb_fab.facts import Reply
from exlb_fab.lab.identity import self_signed
from tests.lab import stranger

Serve = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A certificate that names nobody who asks."""
    folder = tmp_path_factory.mktemp("tls")
    for name, text in zip(("crt", "key"), self_signed(("elsewhere",)), strict=True):
        (folder / name).write_bytes(text)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "crt", folder / "key")
    return made


@contextmanager
def server(serve: Serve, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve one connection; yield the URL."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:

        def one() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=one, daemon=True)
        thread.start()
        named = f"[{host}]" if ":" in host else host
        yield f"https://{named}:{listener.getsockname()[1]}/readyz"
        thread.join(timeout=10)
        assert not thread.is_alive()


def saying(context: ssl.SSLContext, status: str, body: str, seen: list[bytes] | None = None) -> Serve:
    """Answer one HTTPS request."""

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            asked = tls.recv(65536)
            if seen is not None:
                seen.append(asked)
            tls.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    return serve


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", "ok"),
        ("200 OK", "[+]ping ok\nreadyz check passed\n"),
        ("401 Unauthorized", '{"kind": "Status", "code": 401}'),
        ("401 Unauthorized", "Unauthorized\n"),
        ("429 Too Many Requests", "Too many requests, please try again later.\n"),
        ("500 Internal Server Error", "[+]ping ok\n[-]etcd failed: reason withheld\n"),
    ],
)
def test_answer_of_an_apiserver_is_taken_whatever_its_certificate_names(
    context: ssl.SSLContext, status: str, body: str
) -> None:
    with server(saying(context, status, body)) as url:
        found = client.request(url)
    assert found == Reply(int(status.split()[0]), "", accepted=True, body=body)
    assert found.of_apiserver


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", "<html>hello"),
        ("200 OK", "okay"),
        ("404 Not Found", ""),
        ("200 OK", "[]"),
        ("404 Not Found", '{"kind": 1}'),
    ],
)
def test_answer_of_something_else_is_no_apiserver(context: ssl.SSLContext, status: str, body: str) -> None:
    with server(saying(context, status, body)) as url:
        found = client.request(url)
    assert found is not None
    assert (found.code, found.foreign, found.of_apiserver) == (int(status.split()[0]), True, False)


def test_beginning_of_a_long_answer_is_enough(context: ssl.SSLContext) -> None:
    body = json.dumps({"kind": "Status", "message": "no" * 1000}, indent=2)
    with server(saying(context, "403 Forbidden", body)) as url:
        found = client.request(url)
    assert found is not None
    assert found.of_apiserver
    assert found.body == body[:256]


def test_no_proxy_of_the_environment_is_asked(context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    seen: list[bytes] = []
    with server(saying(context, "200 OK", "ok", seen)) as url:
        assert client.request(url) == Reply(200, "", accepted=True, body="ok")
    assert seen[0].startswith(b"GET /readyz HTTP/1.1\r\n")


def test_ipv6_is_asked_like_ipv4(context: ssl.SSLContext) -> None:
    with server(saying(context, "200 OK", "ok"), "::1") as url:
        assert client.request(url) == Reply(200, "", accepted=True, body="ok")


def test_proxy_without_an_apiserver_takes_the_connection_and_says_nothing() -> None:
    with server(lambda connection: None) as url:
        found = client.request(url)
    assert found is not None
    assert (found.code, found.accepted) == (None, True)
    assert found.error


def test_server_that_never_answers_costs_its_limit_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.2)
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        assert ended.wait(10)

    with server(serve) as url:
        found = client.request(url)
        ended.set()
    assert found is not None
    assert (found.code, found.accepted) == (None, True)
    assert "timed out" in found.error


def test_refused_connection_is_told_from_a_host_that_is_not_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert client.request(f"https://127.0.0.1:{port}/readyz") == Reply(None, "Connection refused", accepted=False)


@pytest.mark.parametrize(
    "error", [TimeoutError("timed out"), OSError(113, "No route to host"), OSError(101, "unreachable")]
)
def test_host_that_is_not_reached_is_none(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def connect(*args: object, **more: object) -> socket.socket:
        raise error

    monkeypatch.setattr(socket, "create_connection", connect)
    assert client.request("https://198.51.100.100:8443/readyz") is None


# Who has the VIP, on the bastion's own network

HOST, OTHER_HOST, SELF = "02:00:00:00:00:01", "02:00:00:00:66:66", "02:00:00:00:00:63"
ASKED = IPv4Address("198.51.100.100")
KNOWN = f"""IP address       HW type     Flags       HW address            Mask     Device
198.51.100.10    0x1         0x2         {OTHER_HOST}     *        eth0
198.51.100.100   0x1         0x2         {HOST}     *        br0
"""


class Link:
    """A packet socket on which others say something to each question."""

    said: ClassVar[list[tuple[object, ...]]]

    def __init__(self, family: int, kind: int) -> None:
        self.heard: list[bytes] = []

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self, address: tuple[str, int]) -> None:
        pass

    def bind(self, address: tuple[str, int]) -> None:
        self.said.append(address)

    def getsockname(self) -> tuple[object, ...]:
        return ("198.51.100.1", 0, 0, 1, bytes.fromhex(SELF.replace(":", "")))

    def settimeout(self, seconds: float) -> None:
        assert 0 < seconds <= client.ARP_SECONDS

    def send(self, frame: bytes) -> None:
        self.said.append((frame,))
        self.heard = [stranger.answer_to(frame, mac, str(ASKED)) or b"" for mac in (HOST, OTHER_HOST)]
        self.heard += [b"short", stranger.announcement(SELF, "198.51.100.10")]

    def recv(self, size: int) -> bytes:
        if not self.heard:
            raise TimeoutError
        return self.heard.pop(0)


def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: str, link: object = Link) -> frozenset[str]:
    (tmp_path / "arp").write_text(known)
    Link.said = []
    with monkeypatch.context() as patch:
        patch.setattr(client, "_NEIGHBOURS", tmp_path / "arp")
        patch.setattr(socket, "socket", link)
        return client.arp_answers(ASKED)


def test_all_who_say_that_they_have_the_vip_are_heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert asked(monkeypatch, tmp_path, KNOWN) == {HOST, OTHER_HOST}
    assert [each for each in Link.said if len(each) == 2] == [("br0", 0x0806)]


def test_vip_behind_a_router_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (head, other, *_) = KNOWN.splitlines(keepends=True)
    assert asked(monkeypatch, tmp_path, head + other) == frozenset()
    assert Link.said == []


def test_who_has_the_vip_itself_does_not_ask_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Holder(Link):
        def getsockname(self) -> tuple[object, ...]:
            return (str(ASKED), 0)

    assert asked(monkeypatch, tmp_path, KNOWN, Holder) == frozenset()
    assert Link.said == []


def test_who_may_not_ask_hears_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def forbidden(family: int, kind: int) -> Link:
        if family == socket.AF_PACKET:
            raise PermissionError(1, "Operation not permitted")
        return Link(family, kind)

    assert asked(monkeypatch, tmp_path, KNOWN, forbidden) == frozenset()


def test_system_that_shows_no_neighbours_hears_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "_NEIGHBOURS", tmp_path / "none")
    assert client.arp_answers(ASKED) == frozenset()
