"""ssh: the system's own ssh to one node, with the options and the host key checking that exlb uses itself."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from exlb_fab.cluster import Cluster, SshSettings
from exlb_fab.commands.base import select
from exlb_fab.errors import UsageError

# Source: ssh_config(5) StrictHostKeyChecking; `no` of exlb looks at no file of keys at all.
CHECKS = {"strict": "yes", "accept-new": "accept-new", "no": "no"}


@dataclass(frozen=True, slots=True)
class SshIntoOptions:
    """`command` are the words of one command line, empty for a login shell; `host_key_check` is a key of CHECKS."""

    node: str
    command: tuple[str, ...] = ()
    host_key_check: str = "strict"


def ssh_into(cluster: Cluster, options: SshIntoOptions) -> list[str]:
    """Return the words of the ssh to a node. Raises UsageError where the name is not that of exactly one."""
    try:
        chosen = select(cluster, (options.node,))
    except UsageError as error:  # in the words of --nodes, which was not given
        raise UsageError(f"{options.node}: no such node", hint=error.hint) from None
    if len(chosen) != 1:
        names = ", ".join(node.label for node in chosen)
        raise UsageError(f"{options.node} are several nodes: {names}", hint="exlb exec runs a command on all of them")
    settings = cluster.ssh
    hops = settings.gateway.split(",") if settings.gateway else []
    words = [*_through(settings, options.host_key_check, hops), "-l", settings.user, "-p", str(settings.port)]
    # As one word: ssh joins several by blanks, and the shell on the node would split them elsewhere.
    return [*words, str(chosen[0].address), *([shlex.join(options.command)] if options.command else [])]


def _through(settings: SshSettings, check: str, hops: list[str]) -> list[str]:
    """Return ssh and the options that hold for every hop, the way through the hops before it among them.

    -J would give none of these to a gateway, whose host key and login would be those of the user's configuration.
    """
    words = ["ssh", "-o", f"StrictHostKeyChecking={CHECKS[check]}"]
    if check == "no":
        words += ["-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null"]
    elif settings.known_hosts:
        words += ["-o", f"UserKnownHostsFile={_quoted(settings.known_hosts)}", "-o", "GlobalKnownHostsFile=/dev/null"]
    if settings.key:
        words += ["-o", f"IdentityFile={_quoted(settings.key)}"]
    if hops:
        *before, last = hops
        way = shlex.join([*_through(settings, check, before), "-W"]).replace("%", "%%")
        words += ["-o", f"ProxyCommand={way} [%h]:%p {shlex.join([_destination(last)])}"]
    return words


def _quoted(path: Path) -> str:
    """Return a path in which ssh finds no blank to end it at, and no token to expand."""
    return '"' + str(path).replace("%", "%%") + '"'


def _destination(hop: str) -> str:
    """Return `USER@HOST:PORT` as ssh takes it: a port only in a URI. Of an IPv6 address the colons are no port's."""
    return f"ssh://{hop}" if hop.rpartition("@")[2].count(":") == 1 else hop
