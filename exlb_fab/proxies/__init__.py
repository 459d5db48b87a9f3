"""The proxies that exlb can put behind a VIP, by name."""

from __future__ import annotations

from collections.abc import Mapping

from exlb_fab.proxies.base import Admission, Load, Proxy, ProxyState, Server
from exlb_fab.proxies.haproxy import HAPROXY

__all__ = ["DEFAULT_PROXY", "PROXIES", "Admission", "Load", "Proxy", "ProxyState", "Server"]

PROXIES: Mapping[str, Proxy] = {proxy.name: proxy for proxy in (HAPROXY,)}
DEFAULT_PROXY = next(iter(PROXIES))
