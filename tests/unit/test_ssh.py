"""What can be known of connections without any: nothing that they are made of is shared for writing."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from exlb_fab.errors import UnreachableError
from exlb_fab.events import silent
from exlb_fab.ssh import SshConnector, SshOptions
from tests.fake import cluster


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
