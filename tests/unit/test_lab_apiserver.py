"""The kube-apiserver stand-in, over real TLS on the loopback."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from exlb_fab.lab import layout, probe, standins
from exlb_fab.lab.files import write
from exlb_fab.lab.identity import self_signed
from exlb_fab.lab.waiting import until


class Server:
    """A running stand-in, and how to ask it."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self.certificate = directory / "crt"
        self._control = directory / "control"

    def switch(self, mode: str) -> None:
        write(self._control, f"{mode}\n")

    def connection(self, timeout_s: float = 5) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout_s, context=context)

    def get(self, path: str, method: str = "GET", timeout_s: float = 5) -> tuple[int, bytes]:
        connection = self.connection(timeout_s)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("stand-in")
    certificate, key = self_signed(("lb1", "127.0.0.1", "kubernetes", "localhost"))
    write(directory / "crt", certificate)
    write(directory / "key", key)
    return directory


def words(directory: Path, port: int, *more: str) -> list[str]:
    files = ["--cert", str(directory / "crt"), "--key", str(directory / "key"), "--control", str(directory / "control")]
    return [sys.executable, "-m", "exlb_fab.lab.apiserver", "--port", str(port), "--hostname", "lb1", *files, *more]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def running(directory: Path) -> Iterator[Server]:
    server = Server(free_port(), directory)
    with subprocess.Popen(words(directory, server.port)) as process:
        try:
            assert until(lambda: probe.answers("127.0.0.1", server.port, str(server.certificate)), limit_s=10)
            yield server
        finally:
            process.kill()


@pytest.fixture
def server(running: Server) -> Server:
    running.switch("ok")
    return running


@pytest.mark.parametrize("path", ["/readyz", "/healthz", "/livez", "/readyz?verbose"])
def test_health_paths_say_ok(server: Server, path: str) -> None:
    assert server.get(path) == (200, b"ok")


def test_other_paths_answer_like_an_apiserver_to_somebody_unknown(server: Server) -> None:
    assert server.get("/hostname") == (200, b"lb1")
    for path, code, reason in (("/", 403, "Forbidden"), ("/readyzz", 404, "NotFound"), ("/api", 404, "NotFound")):
        status, body = server.get(path)
        assert status == code
        assert json.loads(body)["code"] == code
        assert json.loads(body)["reason"] == reason


def test_it_says_plainly_what_it_is(server: Server) -> None:
    connection = server.connection()
    connection.request("GET", "/readyz")
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.headers["Server"] == "kube-apiserver stand-in"


@pytest.mark.parametrize("path", ["/readyz", "/healthz", "/livez"])
def test_unhealthy_fails_the_health_paths_alone(server: Server, path: str) -> None:
    server.switch("unhealthy")
    assert server.get(path)[0] == 500
    assert server.get("/hostname") == (200, b"lb1")


@pytest.mark.parametrize("path", ["/readyz", "/hostname", "/watch"])
def test_foreign_answers_every_path_like_no_apiserver(server: Server, path: str) -> None:
    server.switch("foreign")
    assert server.get(path) == (404, b"<html><h1>Not Found</h1></html>")


@pytest.mark.parametrize("path", ["/readyz", "/hostname", "/", "/watch", "/anything"])
def test_unauthorized_refuses_every_path(server: Server, path: str) -> None:
    server.switch("unauthorized")
    status, body = server.get(path)
    assert status == 401
    assert json.loads(body)["reason"] == "Unauthorized"


def test_hung_accepts_and_answers_neither_handshake_nor_request(server: Server) -> None:
    open_before = server.connection(timeout_s=0.3)
    open_before.request("GET", "/readyz")
    open_before.getresponse().read()
    server.switch("hung")

    socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    with pytest.raises(TimeoutError):
        server.get("/readyz", timeout_s=0.3)
    open_before.request("GET", "/readyz")
    with pytest.raises(TimeoutError):
        open_before.getresponse()
    open_before.close()


def test_who_waits_for_a_hung_server_is_served_when_it_recovers(server: Server) -> None:
    server.switch("hung")
    answers: list[tuple[int, bytes]] = []
    client = threading.Thread(target=lambda: answers.append(server.get("/readyz", timeout_s=10)))
    client.start()
    with pytest.raises(TimeoutError):  # another one waits as long in vain
        server.get("/readyz", timeout_s=0.3)
    server.switch("ok")
    client.join(10)
    assert answers == [(200, b"ok")]


def test_many_requests_share_a_connection(server: Server) -> None:
    connection = server.connection()
    connection.connect()
    first = connection.sock
    for method in ("GET", "HEAD", "POST", "GET"):
        connection.request(method, "/readyz", body=b"x" * 2000 if method == "POST" else None)
        assert connection.getresponse().read() == (b"" if method == "HEAD" else b"ok")
    assert connection.sock is first
    connection.close()


def test_watch_streams_lines_while_others_are_served(server: Server) -> None:
    connection = server.connection()
    connection.request("GET", "/watch")
    response = connection.getresponse()
    numbers = []
    for _ in range(2):
        numbers.append(json.loads(response.readline())["object"]["number"])
        assert server.get("/readyz") == (200, b"ok")
    response.close()
    connection.close()
    assert numbers == [1, 2]


def test_garbage_and_broken_handshakes_harm_nobody(server: Server) -> None:
    for opening in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello", os.urandom(2000)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(opening)
    context = ssl.create_default_context(cafile=str(server.certificate))
    for request in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"A" * 100_000):
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(request)
    assert server.get("/readyz") == (200, b"ok")


def test_many_connections_at_once_are_all_served(server: Server) -> None:
    answers: list[tuple[int, bytes]] = []
    clients = [threading.Thread(target=lambda: answers.append(server.get("/readyz", timeout_s=20))) for _ in range(60)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert answers == [(200, b"ok")] * 60


def test_it_ends_with_the_process_that_it_watches(directory: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as watched:
        watching = words(directory, free_port(), "--watch-pid", str(watched.pid))
        with subprocess.Popen(watching, stderr=subprocess.PIPE) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            watched.kill()
            assert process.wait(5) == 0
            assert process.stderr is not None
            assert process.stderr.read() == b""


def test_its_certificate_is_for_the_node_and_for_the_vips(tmp_path: Path) -> None:
    (node,) = layout.nodes(["bookworm"])
    place = layout.LabLayout("a", tmp_path).node(node)
    place.directory.mkdir(parents=True)
    standins.make_certificate(place)
    names = x509.load_pem_x509_certificate(place.apiserver_certificate.read_bytes()).extensions
    found = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(address) for address in found.get_values_for_type(x509.IPAddress)} == {
        node.address, node.address6, layout.VIP, layout.SECOND_VIP, layout.VIP6,
    }  # fmt: skip
    assert "kubernetes" in found.get_values_for_type(x509.DNSName)


def test_the_probe_wants_the_right_certificate(server: Server, tmp_path: Path) -> None:
    another, _ = self_signed(("lb1", "127.0.0.1"))
    write(tmp_path / "crt", another)
    wait = ["--port", str(server.port), "--limit", "0.2", "127.0.0.1"]
    assert probe.main([*wait, str(server.certificate)]) == 0
    assert probe.main([*wait, str(tmp_path / "crt")]) == 1
