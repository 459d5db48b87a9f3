"""One question of `verify` each, and its answer with evidence. Pure: all facts come from one probe per node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from exlb_fab.cluster import Cluster, Node, Vip
from exlb_fab.facts import Facts, Reply, Survey
from exlb_fab.ground import Ground
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


_RANK: tuple[Status, ...] = ("fail", "warn", "skip", "pass")


def gravest(found: Iterable[Verdict]) -> Verdict:
    """Return the first of the gravest of several answers; one at least."""
    return min(found, key=lambda verdict: _RANK.index(verdict.status))


def worst(found: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Answer for several things together, each with its name, as the worst of them are answered; one at least."""
    status = gravest(verdict for _, verdict in found).status
    bad = [(name, verdict) for name, verdict in found if verdict.status == status]
    causes = dict.fromkeys(verdict.cause for _, verdict in bad if verdict.cause)
    hints = dict.fromkeys(verdict.hint for _, verdict in bad if verdict.hint)
    text = "; ".join(f"{name}: {verdict.text}" for name, verdict in bad)
    return Verdict(status, text, "\n".join(causes) or None, "; ".join(hints) or None)


@dataclass(frozen=True, slots=True)
class View:
    """All that a check may look at; `grounds` is what `doctor` asks beside.

    `bastion` is what the bastion got through the VIP, None where it does not reach it; `past_vip` is what it got then
    of the holder's own port, and `heard` are the MACs that answered it when it asked for the VIP by ARP. `before` is
    what was found by the look before the one that counts, None where one was enough.
    """

    cluster: Cluster
    survey: Survey
    desired: Mapping[Node, Rendered]
    expect_no_apiserver: bool = False
    bastion: Reply | None = None
    past_vip: Reply | None = None
    heard: frozenset[str] = frozenset()
    grounds: Mapping[Node, Ground] = field(default_factory=dict)
    before: Survey | None = None

    @property
    def proxy(self) -> Proxy:
        return PROXIES[self.cluster.proxy]

    def facts(self, node: Node) -> Facts:
        return self.survey.facts[node]

    def ground(self, node: Node) -> Ground:
        return self.grounds[node]

    def of_each_vip(self, judge: Callable[[Vip], Verdict]) -> Verdict:
        """Answer for all VIPs; where the answers differ, those that are worst are named."""
        found = [(str(vip), judge(vip)) for vip in self.cluster.vips]
        return found[0][1] if len({verdict for _, verdict in found}) == 1 else worst(found)

    def holder(self, vip: Vip) -> Node | None:
        """Return who has a VIP, None where that is nobody or not one alone."""
        holders = self.survey.holders(vip.address)
        return holders[0] if len(holders) == 1 else None

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
    """A check as `verify` knows it: its id (`family.name`), its title, and how it is decided.

    `about` says what its answers mean, where they mean something else than those of all checks: the docstring of the
    function that decides.
    """

    id: str
    title: str
    decide: Callable[[View], Iterator[Verdict]]
    about: str | None = None

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

            self.append(Check(name, title, run, decide.__doc__))
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

            self.append(Check(name, title, run, decide.__doc__))
            return decide

        return register
