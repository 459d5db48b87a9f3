"""What can be known of connections without any: nothing that they are made of is shared for writing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

import pytest

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


def test_connections_can_be_made_by_many_threads_at_once(hasty: None) -> None:
    connector = SshConnector(cluster().ssh, SshOptions(), silent)

    def make(number: int) -> str:
        connection = connector._connection(str(IPv4Address("198.51.100.1") + number % 200), user="root", port=22)
        connection.gateway = False
        return f"{connection.user}@{connection.host}"

    with ThreadPoolExecutor(max_workers=8) as executor:
        made = list(executor.map(make, range(400)))
    assert len(made) == 400
