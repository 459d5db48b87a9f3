"""Do the firewalls of the nodes let in what the entrance lives by, and the adverts out?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from exlb_fab import firewall
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Address, Node
from exlb_fab.firewall import Blocker, Directive, Firewall, Judgement, Opening

CHECKS = Register()

_Closed = Callable[[Mapping[Opening, Judgement]], Verdict]
_ADVERTS = f"VRRP (protocol {firewall.VRRP_PROTOCOL})"


@CHECKS.per_node("firewall.vrrp", "The node's firewall lets the adverts of the others in, and its own out")
def vrrp(view: View, node: Node) -> Verdict:
    return both_ways(arriving(view, node), leaving(view, node))


def arriving(view: View, node: Node) -> Verdict:
    """Judge whether the adverts of the others come in, which a push can see to."""
    return _judge(view, node, firewall.adverts(view.cluster, node), "nobody else sends adverts", _blocked)


def leaving(view: View, node: Node) -> Verdict | None:
    """Return the verdict on a firewall that surely holds the node's own adverts back, which no push changes."""
    held = _held_by(view, node)
    if not held:
        return None
    programs = " and ".join(dict.fromkeys(each.program for each in held))
    hint = "; ".join(f"as root on it: {firewall.letting_out(each)}" for each in held)
    return failed(f"{programs} does not let out: {_ADVERTS}", hint=hint)


def both_ways(inward: Verdict, outward: Verdict | None) -> Verdict:
    """Return one verdict on both: what is red counts, and both if both are."""
    if outward is None:
        return inward
    if inward.status == "fail":
        return failed(f"{inward.text}; {outward.text}", hint=f"{inward.hint}; {outward.hint}")
    return outward


@CHECKS.per_node("firewall.ports", "The node's firewall lets clients in")
def ports(view: View, node: Node) -> Verdict:
    return _judge(view, node, firewall.ports(view.cluster), "no port", _blocked)


@CHECKS.per_node("firewall.backends", "The node's firewall lets the other proxies reach the backends on it")
def backends(view: View, node: Node) -> Verdict:
    """A closed port is a warning: a backend is no part of the entrance."""
    return _judge(view, node, firewall.backends(view.cluster, node), "no backend on it", _unreachable)


def open_to_vips_alone(view: View, node: Node) -> bool:
    """Tell whether a node's firewall surely lets clients in to every VIP, and surely not to its own addresses."""
    rules = view.facts(node).firewall
    if rules is None:
        return False
    opening = Opening(port=view.cluster.apiserver_listener.port)
    interface = view.facts(node).carrier(view.cluster, node)

    def answers(rules: Firewall, addresses: Iterable[Address]) -> set[str]:
        found = [firewall.packets(view.cluster, node, interface, opening, each) for each in addresses]
        return {rules.judge_all(packets).answer for packets in found}

    own = answers(rules, {node.address, node.source or node.address})
    return own == {"closed"} and answers(rules, (vip.address for vip in view.cluster.vips)) == {"open"}


@dataclass(frozen=True, slots=True)
class Blocking:
    """Whose firewalls surely keep adverts from being heard, in words, and what to type."""

    cause: str
    hint: str


def blocking(view: View, *, hearing: Iterable[Node], sending: Iterable[Node]) -> Blocking | None:
    """Return whose firewalls keep adverts from nodes that should hear or be heard, None where nobody's surely does."""
    kept_out = [(node, each) for node in hearing for each in _closed_to(view, node)]
    held_back = [(node, each) for node in sending for each in _held_by(view, node)]
    told = [_told(found, way) for found, way in ((kept_out, "in"), (held_back, "out")) if found]
    if not told:
        return None
    typed = [f"on {node}: {firewall.letting_out(each)}" for node, each in held_back]
    return Blocking("; ".join(told), "; ".join([*([firewall.MANAGE_HINT] if kept_out else []), *dict.fromkeys(typed)]))


def _told(found: Sequence[tuple[Node, Blocker]], way: str) -> str:
    by_program: dict[str, list[Node]] = {}
    for node, blocker in found:
        by_program.setdefault(blocker.program, []).append(node)
    told = [f"{name} on {_names(dict.fromkeys(nodes))}" for name, nodes in by_program.items()]
    verb = "does not let" if len(told) == 1 else "do not let"
    return f"{' and '.join(told)} {verb} {_ADVERTS} {way}"


def _closed_to(view: View, node: Node) -> Iterator[Blocker]:
    """Yield who surely keeps the adverts of the others out of a node."""
    found = view.facts(node).firewall
    for each in _judgements(view, node, found, firewall.adverts(view.cluster, node)).values() if found else ():
        yield from each.blockers if each.answer == "closed" else ()


def _held_by(view: View, node: Node) -> Sequence[Blocker]:
    """Return who surely holds the adverts of a node back, before they are on their way."""
    facts = view.facts(node)
    if facts.firewall is None:
        return ()
    found = facts.firewall.judge_all(firewall.sent(view.cluster, node, facts.carrier(view.cluster, node)))
    # Chains for what goes out are full of marks and of address translation, which exlb need not understand.
    return found.blockers if found.answer == "closed" else ()


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
        return warned(f"cannot tell whether it lets in: {_openings(unsure)}", cause=why, hint=_rules(node))
    return passed("open")


def _rules(node: Node) -> str:
    return f"exlb exec --sudo --nodes {node} -- nft list ruleset"


def _blocked(shut: Mapping[Opening, Judgement]) -> Verdict:
    early = all(blocker.early for each in shut.values() for blocker in each.blockers)
    manage = "before the chains that exlb opens" if early else firewall.MANAGE_HINT
    return failed(f"{_programs(shut)} does not let in: {_openings(shut)}", hint=f"{manage}; by hand: {_commands(shut)}")


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
