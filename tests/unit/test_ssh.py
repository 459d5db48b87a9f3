"""What can be known of connections without any: nothing that they are made of is shared for writing."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import fabric
import paramiko
import pytest

from exlb_fab.errors import OverdueError, UnreachableError
from exlb_fab.events import silent
from exlb_fab.remote import Completed
from exlb_fab.ssh import SshConnector, SshOptions, SshRemote, Traffic
from tests.fake import cluster

SO_ATTACH_FILTER = 26  # Python has no name for it


@pytest.fixture
def hasty() -> Iterator[None]:
    """Have threads take turns as often as can be."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def test_sshd_that_ends_the_connection_at_once_is_named_with_what_may_be_the_cause(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(lambda: server.accept()[0].close())
        ssh = replace(cluster().ssh, port=server.getsockname()[1], known_hosts=tmp_path / "known_hosts")
        node = replace(cluster().nodes[0], address=IPv4Address("127.0.0.1"))
        with pytest.raises(UnreachableError, match="lb1: cannot connect: its sshd ends the connection") as raised:
            SshConnector(ssh, SshOptions(), silent)(node)
    assert "PerSourcePenalties" in str(raised.value.hint)


def test_connections_can_be_made_by_many_threads_at_once(hasty: None) -> None:
    connector = SshConnector(cluster().ssh, SshOptions(), silent)

    def make(number: int) -> str:
        connection = connector._connection(str(IPv4Address("198.51.100.1") + number % 200), user="root", port=22)
        connection.gateway = False
        return f"{connection.user}@{connection.host}"

    with ThreadPoolExecutor(max_workers=8) as executor:
        made = list(executor.map(make, range(400)))
    assert len(made) == 400


def test_gateway_that_was_lost_is_opened_anew_and_one_that_stands_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    connector = SshConnector(cluster().ssh, SshOptions(), silent)
    standing: set[int] = set()
    monkeypatch.setattr(connector, "_open", lambda connection: standing.add(id(connection)))
    monkeypatch.setattr(fabric.Connection, "is_connected", property(lambda each: id(each) in standing))
    first = connector._jump("bastion.example.org")
    assert connector._jump("bastion.example.org") is first
    standing.clear()
    assert connector._jump("bastion.example.org") is not first


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with near, far:
            yield near, far


def opened(monkeypatch: pytest.MonkeyPatch, transport: paramiko.Transport) -> None:
    """Open a connection that has logged in already."""
    connector = SshConnector(cluster().ssh, SshOptions(host_key_check="no"), silent)

    def log_in(connection: fabric.Connection) -> None:
        connection.transport = transport

    monkeypatch.setattr(connector, "_log_in", log_in)
    connector._open(connector._connection("198.51.100.11"))


def fall_silent(end: socket.socket) -> None:
    """Have one end drop whatever comes, so that it acknowledges nothing any more. Source: socket(7)."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF_RET, 0 bytes
    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop)))


def test_connection_to_a_host_that_has_died_ends(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    monkeypatch.setattr("exlb_fab.ssh.KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr("exlb_fab.ssh.SILENCE_SECONDS", 1)
    near, far = pair
    server, client = paramiko.Transport(far), paramiko.Transport(near)
    try:
        server.add_server_key(paramiko.ECDSAKey.generate())
        server.start_server(threading.Event(), paramiko.ServerInterface())
        client.start_client(timeout=60)
        opened(monkeypatch, client)
        fall_silent(far)
        client.join(timeout=60)
        assert not client.is_active()
    finally:
        client.close()
        server.close()


def test_what_goes_through_a_gateway_is_left_to_the_connection_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened(monkeypatch, paramiko.Transport(paramiko.Channel(0)))


def test_program_that_does_not_end_is_named_without_an_option_that_would_not_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = SshRemote(cluster().nodes[0], fabric.Connection("198.51.100.11"), False, None, Traffic())
    monkeypatch.setattr(remote, "_run", lambda *words, **others: Completed(124, "", ""))
    with pytest.raises(OverdueError, match="lb1: no end after 0 s") as raised:
        remote.run("sleep 9", limit_seconds=0)
    assert "exlb ssh lb1" in str(raised.value.hint)
    assert "--timeout" not in str(raised.value.hint)
