"""Do the firewalls of the nodes let in what the entrance lives by?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from exlb_fab import firewall
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Node
from exlb_fab.firewall import Directive, Firewall, Judgement, Opening

CHECKS = Register()

_Closed = Callable[[Mapping[Opening, Judgement]], Verdict]


@CHECKS.per_node("firewall.vrrp", "The node's firewall lets the adverts of the others in")
def vrrp(view: View, node: Node) -> Verdict:
    return _judge(view, node, firewall.adverts(view.cluster, node), "nobody else sends adverts", _blocked)


@CHECKS.per_node("firewall.ports", "The node's firewall lets clients in")
def ports(view: View, node: Node) -> Verdict:
    return _judge(view, node, firewall.ports(view.cluster), "no port", _blocked)


@CHECKS.per_node("firewall.backends", "The node's firewall lets the other proxies reach the backends on it")
def backends(view: View, node: Node) -> Verdict:
    return _judge(view, node, firewall.backends(view.cluster, node), "no backend on it", _unreachable)


def blocking_adverts(view: View, nodes: Iterable[Node]) -> str | None:
    """Return whose firewall keeps the adverts of the others out, None where nobody's surely does."""
    by_program: dict[str, list[Node]] = {}
    for node in nodes:
        found = view.facts(node).firewall
        for each in _judgements(view, node, found, firewall.adverts(view.cluster, node)).values() if found else ():
            if each.answer == "closed":
                for blocker in each.blockers:
                    by_program.setdefault(blocker.program, []).append(node)
    told = [f"{name} on {_names(dict.fromkeys(found))}" for name, found in by_program.items()]
    verb = "does not let" if len(told) == 1 else "do not let"
    return f"{' and '.join(told)} {verb} VRRP (protocol {firewall.VRRP_PROTOCOL}) in" if told else None


def _names(nodes: Iterable[Node]) -> str:
    *first, last = map(str, nodes)
    return f"{', '.join(first)} and {last}" if first else last


def _judgements(view: View, node: Node, found: Firewall, openings: Sequence[Opening]) -> dict[Opening, Judgement]:
    return firewall.judged(found, view.cluster, node, view.facts(node).carrier(view.cluster, node), openings)


def _judge(view: View, node: Node, openings: Sequence[Opening], nothing: str, closed: _Closed) -> Verdict:
    found = view.facts(node).firewall
    if found is None:
        return skipped("FIREWALL=ignore")
    if not openings:
        return passed(nothing)
    judgements = _judgements(view, node, found, openings)
    shut = {opening: each for opening, each in judgements.items() if each.answer == "closed"}
    if shut:
        return closed(shut)
    unsure = {opening: each for opening, each in judgements.items() if each.answer == "unknown"}
    if unsure:
        why = found.unread or f"{_programs(unsure)} has rules that exlb does not understand"
        return warned(f"cannot tell whether it lets in: {_openings(unsure)}", cause=why)
    return passed("open")


def _blocked(shut: Mapping[Opening, Judgement]) -> Verdict:
    return failed(
        f"{_programs(shut)} does not let in: {_openings(shut)}",
        hint=f"{firewall.MANAGE_HINT}; by hand: {_commands(shut)}",
    )


def _unreachable(shut: Mapping[Opening, Judgement]) -> Verdict:
    """Warn: a backend is no part of the entrance, and exlb does not open its port."""
    return warned(f"{_programs(shut)} does not let in: {_openings(shut)}", hint=f"as root on it: {_commands(shut)}")


def _programs(judgements: Mapping[Opening, Judgement]) -> str:
    return " and ".join(dict.fromkeys(blocker.program for each in judgements.values() for blocker in each.blockers))


def _openings(openings: Iterable[Opening]) -> str:
    return ", ".join(map(str, openings))


def _commands(judgements: Mapping[Opening, Judgement]) -> str:
    return "; ".join(
        firewall.command(Directive(blocker.program, blocker.place, opening))
        for opening, each in judgements.items()
        for blocker in each.blockers
    )
