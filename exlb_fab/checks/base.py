"""One question of `verify` each, and its answer with evidence. Pure: all facts come from one probe per node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from exlb_fab.cluster import Cluster, Node
from exlb_fab.facts import Facts, Survey
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.rendering import Rendered

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one check, for one node or (`node` is None) for all of them together."""

    status: Status
    text: str
    cause: str | None = None
    hint: str | None = None
    check: str = ""
    node: Node | None = None
    unreachable: bool = False


def passed(text: str) -> Verdict:
    """Answer that all is well."""
    return Verdict("pass", text)


def warned(text: str, *, cause: str | None = None, hint: str | None = None) -> Verdict:
    """Answer that something is odd while clients are served; it does not make `verify` red."""
    return Verdict("warn", text, cause, hint)


def failed(text: str, *, cause: str | None = None, hint: str | None = None) -> Verdict:
    """Answer that something is wrong, with what is known of the cause, and what to type next."""
    return Verdict("fail", text, cause, hint)


def skipped(text: str) -> Verdict:
    """Answer that the question cannot be asked, and why."""
    return Verdict("skip", text)


@dataclass(frozen=True, slots=True)
class View:
    """All that a check may look at."""

    cluster: Cluster
    survey: Survey
    desired: Mapping[Node, Rendered]
    expect_no_apiserver: bool = False

    @property
    def proxy(self) -> Proxy:
        return PROXIES[self.cluster.proxy]

    def facts(self, node: Node) -> Facts:
        return self.survey.facts[node]

    def stopped(self, node: Node) -> Verdict | None:
        """Return the verdict on what cannot be asked while the proxy does not run: that alone is the finding."""
        unit = self.proxy.unit
        return None if self.facts(node).units[unit].running else skipped(f"{unit} does not run")

    @property
    def answering(self) -> tuple[Node, ...]:
        """Return the nodes that the probe reached, in the order of the environment file."""
        return tuple(node for node in self.cluster.nodes if node in self.survey.facts)


@dataclass(frozen=True, slots=True)
class Check:
    """A check as `verify` knows it: its id (`family.name`), its title, and how it is decided."""

    id: str
    title: str
    decide: Callable[[View], Iterator[Verdict]]

    @property
    def family(self) -> str:
        return self.id.partition(".")[0]


class Register(list[Check]):
    """The checks of one file, in the order in which they are written."""

    def overall(self, name: str, title: str) -> Callable[[Callable[[View], Verdict]], Callable[[View], Verdict]]:
        """Register a question about all nodes together."""

        def register(decide: Callable[[View], Verdict]) -> Callable[[View], Verdict]:
            def run(view: View) -> Iterator[Verdict]:
                yield replace(decide(view), check=name)

            self.append(Check(name, title, run))
            return decide

        return register

    def per_node(
        self, name: str, title: str
    ) -> Callable[[Callable[[View, Node], Verdict]], Callable[[View, Node], Verdict]]:
        """Register a question about each node that the probe reached."""

        def register(decide: Callable[[View, Node], Verdict]) -> Callable[[View, Node], Verdict]:
            def run(view: View) -> Iterator[Verdict]:
                for node in view.answering:
                    yield replace(decide(view, node), check=name, node=node)

            self.append(Check(name, title, run))
            return decide

        return register
