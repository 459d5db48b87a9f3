"""What the connections of one command share, without a node behind any of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from exlb_fab.cluster import SshSettings
from exlb_fab.events import silent
from exlb_fab.ssh import SshConnector, SshOptions


@pytest.fixture
def hurried() -> Iterator[None]:
    """Let threads take turns as often as a busy machine does over hours."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hurried")
def test_connections_that_are_made_at_once_find_the_shared_configuration_whole() -> None:
    made = SshConnector(SshSettings("root", 22, None, None, None, "auto"), SshOptions(), silent)
    with ThreadPoolExecutor(max_workers=8) as pool:
        hosts = [
            connection.host for connection in pool.map(made._connection, [f"198.51.100.{n}" for n in range(1, 101)])
        ]
    assert len(hosts) == 100
