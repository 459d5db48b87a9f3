"""What the options of the proxy do on real machines: each is pushed, and then looked at from outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exlb_fab.lab import Lab, down
from exlb_fab.lab.layout import lab_layout
from exlb_fab.proxies import PROXIES
from tests.lab.bastion import KEEPALIVED_PATH, Bastion, listens

PROXY = PROXIES["haproxy"]
LISTENER = "kube-master"
BACKEND_PORT = 7000
EXTRA_PORT = 7001
STATS_PORT = 10080
FOREIGN = "foreign"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"  # the PROXY protocol 2.2
# Both sides read until the other ends: who closes with something unread sends a reset, which may overtake the answer.
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as connection:
    connection.sendall(b"hello, this is a client\\n")
    connection.shutdown(socket.SHUT_WR)
    while data := connection.recv(4096):
        sys.stdout.buffer.write(data)
"""
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes, which is enough for the proxy of one of them and a backend elsewhere."""
    name = f"t-options-{os.getpid() % 10000}"
    try:
        yield Lab.up(name, 2)
    finally:
        down(name)


@pytest.fixture(scope="module")
def deployed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    Bastion(lab, tmp_path_factory.mktemp("deploy")).exlb("deploy")
    return lab


@pytest.fixture
def bastion(deployed: Lab, tmp_path: Path) -> Iterator[Bastion]:
    """exlb on the bastion of nodes that serve; what a test pushes stays, and the next one pushes its own."""
    try:
        yield Bastion(deployed, tmp_path)
    finally:
        for node in deployed.nodes:
            deployed.apiserver(node, "ok")


def push(bastion: Bastion, **variables: str) -> Path:
    """Push the lab's own environment with some variables, and return its file."""
    env = bastion.environment(**variables)
    bastion.exlb("push-config", "--yes", env=env)
    return env


def ask(bastion: Bastion, command: str, node: str = "lb1") -> str:
    """Return what the proxy's admin socket answers."""
    script = 'printf "%s\\n" "$1" | socat -T 3 - "UNIX-CONNECT:$2"'
    return bastion.inside(node, "sh", "-c", script, "sh", command, PROXY.admin_socket)


def statuses(bastion: Bastion, node: str = "lb1") -> dict[str, str]:
    """Return the status of each apiserver by its address, as the proxy of a node sees it."""
    state = PROXY.parse_state(ask(bastion, "show info", node) + ask(bastion, "show stat", node))
    return {server.name: server.status for server in state.servers if server.listener == LISTENER}


def curl(bastion: Bastion, url: str, *words: str) -> tuple[int, str]:
    """Return the status and the body of an answer that the bastion gets."""
    done = bastion.lab.run(["curl", "-ksS", "--max-time", "5", "-w", "\n%{http_code}", *words, url], capture=True)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), body


@contextmanager
def listening(bastion: Bastion, node: str, port: int, does: str) -> Iterator[None]:
    """Have somebody else listen on a port of a node, and do something with each connection (a socat address)."""
    start = f"systemd-run --quiet --collect --unit={FOREIGN} socat TCP-LISTEN:{port},fork,reuseaddr {does}"
    bastion.inside(node, "sh", "-c", f"{start} && {listens(port)}")
    try:
        yield
    finally:
        bastion.inside(node, "systemctl", "stop", FOREIGN)


def heard(bastion: Bastion, port: int) -> str:
    """Return what a client that says one line, and no more, hears on a port of the VIP."""
    done = bastion.lab.run([sys.executable, "-c", CLIENT, bastion.lab.vip, str(port)], capture=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("latin-1")


def authorities(bastion: Bastion, *nodes: str) -> str:
    """Return a file with the certificates of the stand-ins of some nodes, which each signed its own."""
    layout = lab_layout(bastion.lab.name)
    certificates = [layout.node(bastion.lab.node(node)).apiserver_certificate.read_text() for node in nodes]
    path = bastion.folder / "authorities.pem"
    path.write_text("".join(certificates))
    return str(path)


# Health checks


@pytest.mark.parametrize(
    ("check", "mode", "status"),
    [
        ("readyz", "unauthorized", "DOWN"),
        pytest.param("readyz", "unhealthy", "DOWN", marks=slow),
        pytest.param("healthz", "unhealthy", "DOWN", marks=slow),
        pytest.param("livez", "unhealthy", "DOWN", marks=slow),
        ("ssl-hello", "unhealthy", "UP"),
        pytest.param("ssl-hello", "hung", "DOWN", marks=slow),
        pytest.param("tcp", "unhealthy", "UP", marks=slow),
        pytest.param("tcp", "hung", "UP", marks=slow),
        pytest.param("tcp", "off", "DOWN", marks=slow),
    ],
)
def test_health_check_sees_what_it_asks_for(bastion: Bastion, check: str, mode: str, status: str) -> None:
    push(bastion, HEALTH_CHECK=check, BACKEND_INTER="200ms")
    assert set(statuses(bastion).values()) == {"UP"}
    other, asked = (bastion.address(node) for node in ("lb1", "lb2"))
    bastion.lab.apiserver("lb2", mode)
    # The other one tells that enough checks have ended since: down takes two, and up two more.
    bastion.lab.apiserver("lb1", "off")
    bastion.wait_until(lambda: statuses(bastion)[other] == "DOWN")
    bastion.lab.apiserver("lb1", "ok")
    bastion.wait_until(lambda: statuses(bastion)[other] == "UP")
    assert statuses(bastion)[asked] == status


@pytest.mark.slow
def test_authority_that_did_not_sign_an_apiserver_is_taken_back(bastion: Bastion) -> None:
    push(bastion, APISERVER_CA=authorities(bastion, "lb1", "lb2"))
    assert set(statuses(bastion).values()) == {"UP"}
    before = {node: bastion.bytes_of(node) for node in bastion.nodes}
    env = bastion.environment(APISERVER_CA=authorities(bastion, "lb1"))
    ran = bastion.exlb("push-config", "--yes", env=env, status=1)
    assert f"{LISTENER}/{bastion.address('lb2')} was up before, and is not now" in ran.said
    assert "SSL handshake failure" in ran.said
    assert {node: bastion.bytes_of(node) for node in bastion.nodes} == before


# How it listens, and what else it serves


@pytest.mark.slow
def test_frontend_layout_serves_clients_and_passes_every_check(bastion: Bastion) -> None:
    env = push(bastion, LISTENER_LAYOUT="frontend")
    assert bastion.served()
    bastion.wait_until(lambda: bastion.exlb("verify", env=env, status=None).status == 0)


def test_extra_listener_serves_its_backend(bastion: Bastion) -> None:
    backend = f"{bastion.address('lb2')}:{BACKEND_PORT}"
    with listening(bastion, "lb2", BACKEND_PORT, "SYSTEM:'cat >/dev/null && echo hello from lb2'"):
        push(bastion, EXTRA_LISTENERS=f"('greeting {EXTRA_PORT} {backend}')")
        assert heard(bastion, EXTRA_PORT) == "hello from lb2\n"


@pytest.mark.parametrize(
    ("version", "begins"),
    [("v1", b"PROXY TCP4 198.51.100.1 "), pytest.param("v2", PROXY_V2, marks=slow)],
    ids=["v1", "v2"],
)
def test_ingress_is_told_the_address_of_a_client(bastion: Bastion, version: str, begins: bytes) -> None:
    with listening(bastion, "lb2", BACKEND_PORT, "SYSTEM:cat"):  # an echo
        push(
            bastion,
            INGRESS_NODE_IPS=f"({bastion.address('lb2')})",
            INGRESS_HTTP_NODEPORT=str(BACKEND_PORT),
            INGRESS_HTTP_PORT=str(EXTRA_PORT),
            INGRESS_PROXY_PROTOCOL=version,
        )
        assert heard(bastion, EXTRA_PORT).encode("latin-1").startswith(begins)


def test_port_of_an_extra_listener_that_is_taken_is_found_before_the_change(bastion: Bastion) -> None:
    push(bastion)
    before = {node: bastion.bytes_of(node) for node in bastion.nodes}
    env = bastion.environment(EXTRA_LISTENERS=f"('greeting {EXTRA_PORT} {bastion.address('lb2')}:{BACKEND_PORT}')")
    with listening(bastion, "lb2", EXTRA_PORT, "OPEN:/dev/null"):
        ran = bastion.exlb("push-config", "--yes", env=env, status=1)
    assert f"lb2: port {EXTRA_PORT} is taken by socat" in ran.said
    assert {node: bastion.bytes_of(node) for node in bastion.nodes} == before


# The statistics page


@pytest.mark.slow
def test_statistics_page_asks_for_its_password_and_changes_nothing_by_default(bastion: Bastion) -> None:
    push(bastion, STATS_PASSWORD="'p w\"#'")
    url = f"http://{bastion.address('lb1')}:{STATS_PORT}/status"
    assert curl(bastion, url)[0] == 401
    status, page = curl(bastion, url, "-u", 'admin:p w"#')
    assert status == 200
    assert LISTENER in page
    assert 'value="Apply"' not in page
    drain = f"s={bastion.address('lb2')}&b={LISTENER}&action=drain"
    curl(bastion, url, "-u", 'admin:p w"#', "-d", drain)
    assert set(statuses(bastion).values()) == {"UP"}


@slow
def test_statistics_page_with_admin_drains_a_server(bastion: Bastion) -> None:
    push(bastion, STATS_USER="ops", STATS_PASSWORD="plain", STATS_ADMIN="yes")
    url = f"http://{bastion.address('lb1')}:{STATS_PORT}/status"
    assert 'value="Apply"' in curl(bastion, url, "-u", "ops:plain")[1]
    curl(bastion, url, "-u", "ops:plain", "-d", f"s={bastion.address('lb2')}&b=kube-master&action=drain")
    assert statuses(bastion)[bastion.address("lb2")] == "DRAIN"
    ask(bastion, f"set server {LISTENER}/{bastion.address('lb2')} state ready")


@slow
def test_exporter_answers_prometheus_and_is_not_there_unless_asked_for(bastion: Bastion) -> None:
    url = f"http://{bastion.address('lb1')}:{STATS_PORT}/metrics"
    push(bastion, STATS_BIND="0.0.0.0", EXPORTER="yes")
    status, metrics = curl(bastion, url)
    assert status == 200
    assert re.search(
        r'^haproxy_server_status\{proxy="kube-master",server="[^"]*",state="UP"\} 1$', metrics, re.MULTILINE
    )
    push(bastion, STATS_BIND="0.0.0.0")
    assert "haproxy_server_status" not in curl(bastion, url)[1]


# What keepalived asks


@pytest.mark.slow
def test_scripts_of_keepalived_tell_a_port_from_an_apiserver(bastion: Bastion) -> None:
    push(bastion, TRACK="script,port,apiserver", BACKEND_INTER="200ms", CHECK_FALL="200")  # that the VIP stays
    (holder,) = bastion.holders()
    assert asked(bastion, holder) == {"killall": True, "port": True, "apiserver": True}
    for node in bastion.nodes:
        bastion.lab.apiserver(node, "unhealthy")
    bastion.wait_until(lambda: set(statuses(bastion, holder).values()) == {"DOWN"})
    assert asked(bastion, holder) == {"killall": True, "port": True, "apiserver": False}
    for node in bastion.nodes:
        bastion.lab.apiserver(node, "ok")
    bastion.wait_until(lambda: set(statuses(bastion, holder).values()) == {"UP"})
    with bastion.broken(holder, "systemctl stop haproxy", "systemctl start haproxy"):
        assert asked(bastion, holder) == {"killall": False, "port": False, "apiserver": False}


def asked(bastion: Bastion, node: str) -> dict[str, bool]:
    """Return the answers to what the keepalived of a node asks, by the names of the scripts."""
    commands = re.findall(r'^ *script "(.*)"$', bastion.inside(node, "cat", KEEPALIVED_PATH), re.MULTILINE)
    names = [re.search(r"killall|port|apiserver", command) for command in commands]
    answers = [bastion.lab.shell_in(node, ["sh", "-c", command], timeout=10).returncode == 0 for command in commands]
    return {name[0]: answer for name, answer in zip(names, answers, strict=True) if name}


# Reloads and logs


@slow
@pytest.mark.parametrize(("keeps", "after"), [("yes", "DRAIN"), ("no", "UP")])
def test_drained_server_stays_so_over_a_push_where_asked_for(bastion: Bastion, keeps: str, after: str) -> None:
    drained = bastion.address("lb2")
    push(bastion, SERVER_STATE=keeps)
    ask(bastion, f"set server {LISTENER}/{drained} state drain")
    assert statuses(bastion)[drained] == "DRAIN"
    push(bastion, SERVER_STATE=keeps, TIMEOUT_CONNECT="4s")
    assert statuses(bastion)[drained] == after
    ask(bastion, f"set server {LISTENER}/{drained} state ready")


@slow
@pytest.mark.parametrize(("limit", "ends"), [("1s", True), ("", False)])
def test_hard_stop_ends_a_process_of_before_a_reload(bastion: Bastion, limit: str, ends: bool) -> None:
    push(bastion, HARD_STOP_AFTER=limit)
    words = ["curl", "-ksN", f"https://{bastion.lab.vip}:8443/watch"]
    with bastion.lab.popen(words, stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        try:
            assert watch.stdout.readline()
            push(bastion, HARD_STOP_AFTER=limit, TIMEOUT_CONNECT="4s")
            if ends:
                assert watch.wait(timeout=30) != 0
            else:
                # More lines than can have come before the reload: the stand-in writes one every second.
                assert all(watch.stdout.readline() for _ in range(20))
                assert watch.poll() is None
        finally:
            watch.kill()


@slow
@pytest.mark.parametrize("place", ["journal", "syslog"])
def test_connections_are_logged_to_the_journal(bastion: Bastion, place: str) -> None:
    push(bastion, LOG=place)
    (holder,) = bastion.holders()
    cursor = bastion.inside(holder, "sh", "-c", "journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p'").strip()
    assert bastion.served()
    # Without a filter of journalctl's own, which skips one more entry after a cursor.
    words = ("journalctl", f"--after-cursor={cursor}", "-o", "json", "--no-pager")

    def logged() -> set[str]:
        """Return the priorities of the lines about this client."""
        lines = [json.loads(line) for line in bastion.inside(holder, *words).splitlines()]
        ours = [line for line in lines if line.get("SYSLOG_IDENTIFIER") == PROXY.process]
        return {line["PRIORITY"] for line in ours if line["MESSAGE"].startswith(f"{bastion.lab.gateway}:")}

    bastion.wait_until(lambda: logged() != set())
    assert logged() == {"6"}  # info
