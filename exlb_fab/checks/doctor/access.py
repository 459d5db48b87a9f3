"""Does every node let exlb in, and do there what it has to?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from exlb_fab.checks.base import Check, Register, Verdict, View, failed, passed, skipped
from exlb_fab.cluster import Node
from exlb_fab.errors import ExlbError, UnreachableError

CHECKS = Register()

SSH = "access.ssh"
ROOT = "access.root"


_Decide = Callable[[View, Node], Verdict]


def _every_node(name: str, decide: _Decide) -> Callable[[View], Iterator[Verdict]]:
    """Ask about nodes that did not answer as well."""

    def run(view: View) -> Iterator[Verdict]:
        for node in view.cluster.nodes:
            yield replace(decide(view, node), check=name, node=node)

    return run


def _ssh(view: View, node: Node) -> Verdict:
    error = view.survey.errors.get(node)
    if isinstance(error, UnreachableError):
        return replace(failed(error.message, hint=_next(error, node)), unreachable=True)
    return passed(f"as {view.cluster.ssh.user}")


def _root(view: View, node: Node) -> Verdict:
    error = view.survey.errors.get(node)
    if isinstance(error, UnreachableError):
        return skipped("cannot be reached")
    if error is not None:
        return failed(error.message, hint=_next(error, node))
    system = view.facts(node).system
    if system is not None and system.user_id != 0:
        user = view.cluster.ssh.user
        return failed(f"{user} is not root there", hint="SUDO=yes in environment.sh, or another SSH_USER")
    return passed("through sudo" if view.cluster.ssh.uses_sudo else "yes")


def _next(error: ExlbError, node: Node) -> str:
    return error.hint or f"exlb ssh {node} shows how the node answers"


CHECKS.append(Check(SSH, "SSH reaches the node, which has the host key that is known of it", _every_node(SSH, _ssh)))
CHECKS.append(Check(ROOT, "exlb is root there, and its programs run", _every_node(ROOT, _root)))
