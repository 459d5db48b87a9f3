"""What a proxy has to tell about itself so that the rest of exlb need not know its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from exlb_fab.platforms import Feature

Admission = Literal["ready", "drain", "disable"]


@dataclass(frozen=True, slots=True)
class Server:
    """One backend server as the running proxy sees it.

    `sessions` are those that it has now; `bytes_in` go to it, `bytes_out` come from it. `changed_seconds` is how long
    its status is what it is. `admission` is what an operator lets it have: all connections, those that it has, or none.
    """

    listener: str
    name: str
    address: str
    status: str
    check: str
    code: int | None
    detail: str
    sessions: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    changed_seconds: int | None = None
    admission: Admission = "ready"

    @property
    def up(self) -> bool:
        return self.status.startswith("UP") or self.status == "no check"

    @property
    def judged(self) -> bool:
        """False until the first health check has ended: until then the status is a guess. Some have no check at all."""
        return self.nameless or self.status == "no check" or self.check not in ("", "INI")

    @property
    def nameless(self) -> bool:
        """Tell whether the proxy has no address for it, because its name did not resolve: it is checked by nobody."""
        return self.status.startswith("MAINT") and self.admission == "ready"

    @property
    def takes(self) -> bool:
        """Tell whether new connections are sent to it."""
        return self.up and self.admission == "ready"

    @property
    def unauthorized(self) -> bool:
        return self.code == 401


@dataclass(frozen=True, slots=True)
class Load:
    """How many connections the proxy has, or (`listener`) one of its listeners, and how many it takes at most."""

    connections: int
    limit: int
    listener: str = ""

    @property
    def share(self) -> float:
        """Return how much of its limit it is; at 1 the next connection waits."""
        return self.connections / self.limit

    def __str__(self) -> str:
        return f"{self.connections} of {self.limit}{f' at {self.listener}' if self.listener else ''}"


@dataclass(frozen=True, slots=True)
class ProxyState:
    """What the admin socket of a running proxy says: which configuration runs, its servers, and how busy it is.

    `leaving` are the connections to an address that processes which a reload has replaced still have.
    """

    digest: str | None
    servers: tuple[Server, ...]
    leaving: Mapping[str, int] = field(default_factory=dict)
    loads: tuple[Load, ...] = ()


@dataclass(frozen=True, slots=True)
class Domain:
    """What SELinux lets a proxy do: the boolean that allows it all ports, the types of those that it may use anyway.

    `label` is the type that makes a port one of them.
    """

    boolean: str
    binds: frozenset[str]
    connects: frozenset[str]
    label: str


@dataclass(frozen=True, slots=True)
class Proxy:
    """One kind of proxy: what to install, render and ask.

    `program` names the file in `node/` with its shell functions: proxy_version, proxy_validate FILE,
    proxy_state, proxy_admit ADMISSION LISTENER/SERVER, proxy_others, proxy_digest, proxy_settled, proxy_remember,
    proxy_forget, proxy_own. `memory` is the file that carries the state of the servers over a reload. `log_socket` is
    where it finds /dev/log from inside of its chroot.
    `quote` turns any text into one word of its configuration language.
    `ports` are those that a configuration listens on, as far as it says so by number.
    `features` are what the templates may use of a version, `services` what a binary says that it is built with.
    `file_limit` is how many open files so many connections need. `domain` is what SELinux knows of it.
    `mask` hides the passwords in a configuration, ours or one found. `mark` is the line by which a
    running proxy tells the digest of its configuration. `parse_state` raises FactsError on what it
    does not understand.
    """

    name: str
    unit: str
    process: str
    packages: tuple[str, ...]
    path: str
    template: str
    admin_socket: str
    memory: str
    log_socket: str
    program: str
    quote: Callable[[str], str]
    ports: Callable[[str], frozenset[int]]
    mask: Callable[[str], str]
    mark: Callable[[str], str]
    features: tuple[Feature, ...]
    services: Callable[[str], frozenset[str]]
    file_limit: Callable[[int], int]
    domain: Domain
    parse_state: Callable[[str], ProxyState]
