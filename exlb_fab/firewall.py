"""What the firewall of a node lets in, and whether its adverts get out: its own ruleset, walked by packets. Pure.

firewalld and ufw end in rules of the kernel like everybody's, and the kernel is what decides. So nothing is read of
what they say about themselves; their names are told from the rules, for who has to change something.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any, Literal, get_args

from exlb_fab.cluster import Address, Cluster, Node
from exlb_fab.errors import FactsError
from exlb_fab.iptables import parse_tables
from exlb_fab.platforms import Feature, parse_version

Program = Literal["firewalld", "ufw", "iptables", "nftables"]
Answer = Literal["open", "closed", "unknown"]
Hook = Literal["input", "output"]
VRRP_PROTOCOL = 112
# Source: RFC 5798 5.1.1.2 and 5.1.2.2.
GROUPS = {4: ip_address("224.0.0.18"), 6: ip_address("ff02::12")}
PERMANENT: tuple[Program, ...] = ("firewalld", "ufw")  # what is opened there is there after a boot as well
MANAGE_HINT = "FIREWALL=manage in the environment file lets exlb push-config open it"


@dataclass(frozen=True, slots=True)
class Opening:
    """What has to come in: connections to a port, or else adverts from a peer (`source`) or to the group."""

    port: int | None = None
    source: Address | None = None
    destination: Address | None = None

    @property
    def words(self) -> str:
        """Return it as `node/firewall.sh` reads it, and as a node remembers it."""
        if self.port is not None:
            return f"tcp {self.port}"
        return f"vrrp from {self.source}" if self.source else f"vrrp to {self.destination}"

    def __str__(self) -> str:
        if self.port is not None:
            return f"TCP port {self.port}"
        return f"VRRP (protocol {VRRP_PROTOCOL}) {'from' if self.source else 'to'} {self.source or self.destination}"


@dataclass(frozen=True, slots=True)
class Directive:
    """One opening in one firewall: `place` is a zone, ip or ip6, family/table/chain, or `-` where there is no other."""

    program: Program
    place: str
    opening: Opening

    @property
    def line(self) -> str:
        return f"{self.program} {self.place} {self.opening.words}"

    @property
    def where(self) -> str:
        """Return the firewall, and the place in it, for people."""
        place = {"firewalld": f" (zone {self.place})", "nftables": f" ({self.place.replace('/', ' ')})"}
        return f"{self.program}{place.get(self.program, '')}"


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet that has to come in, or (`hook`) to go out; what is None is not known."""

    family: int
    interface: str | None
    source: Address | None
    destination: Address | None
    port: int | None = None
    hook: Hook = "input"

    @property
    def protocol(self) -> int:
        return VRRP_PROTOCOL if self.port is None else 6


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain; `policy` is None where no hook leads to it. A rule is a list of statements in nft's JSON form."""

    hook: str | None
    policy: str | None
    rules: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """One table; `family` is ip, ip6 or inet, `sets` are the elements of its named sets and maps.

    `kept` are the statements of those sets that have some for each of their elements.
    """

    family: str
    name: str
    chains: dict[str, Chain]
    sets: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blocker:
    """Who does not let a packet pass, and where that can be changed.

    `early` is before the chains for what comes in, where others protect themselves: exlb opens nothing there.
    """

    program: Program
    place: str
    early: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a packet passes; `blockers` are who surely, or where that is not known perhaps, does not let it."""

    answer: Answer
    blockers: tuple[Blocker, ...] = ()


OPEN = Judgement("open")


@dataclass(frozen=True, slots=True)
class Firewall:
    """The firewall of one node: its tables with rules for what comes in or goes out, and what exlb has opened there.

    `unread` says why the rules are not known although there may be some.
    """

    tables: tuple[Table, ...] = ()
    opened: tuple[Directive, ...] = ()
    unread: str = ""

    def judge(self, packet: Packet) -> Judgement:
        """Tell whether a packet that begins something new passes: every chain of its hook, and those before that.

        Of the chains before only what surely drops counts: they are full of marks and of reverse path filters.
        """
        if self.unread:
            return Judgement("unknown")
        found: dict[Answer, list[Blocker]] = {"closed": [], "unknown": []}
        for table in self.tables:
            if table.family not in ("inet", "ip" if packet.family == 4 else "ip6"):
                continue
            for name, chain in table.chains.items():
                before = (chain.hook, packet.hook) == ("prerouting", "input")
                if chain.hook != packet.hook and not before:
                    continue
                walk = _Walk(table, packet)
                outcomes = walk.base(chain)
                if "drop" in outcomes and not (before and "accept" in outcomes):
                    found["unknown" if "accept" in outcomes else "closed"].append(walk.blocker(name, early=before))
        if found["closed"]:
            return Judgement("closed", tuple(dict.fromkeys(found["closed"])))
        return Judgement("unknown", tuple(dict.fromkeys(found["unknown"]))) if found["unknown"] else OPEN

    def judge_all(self, packets: Iterable[Packet]) -> Judgement:
        """Tell whether all packets pass; closed where one surely does not."""
        judgements = [self.judge(packet) for packet in packets]
        for answer in ("closed", "unknown"):
            worst = [each for each in judgements if each.answer == answer]
            if worst:
                return replace(worst[0], blockers=tuple(dict.fromkeys(b for each in worst for b in each.blockers)))
        return OPEN


# What is needed


def adverts(cluster: Cluster, node: Node) -> tuple[Opening, ...]:
    """Return what has to come in for a node to hear the others."""
    others = [each for each in cluster.nodes if each != node]
    if not others:
        return ()
    if cluster.vrrp.mode == "multicast":
        return (Opening(destination=GROUPS[cluster.vip.address.version]),)
    return tuple(Opening(source=each.source or each.address) for each in others)


def ports(cluster: Cluster) -> tuple[Opening, ...]:
    """Return the ports that clients connect to: those of the listeners, and of a statistics page that is not local."""
    stats = () if cluster.stats.bind.is_loopback else (cluster.stats.port,)
    return tuple(Opening(port=port) for port in dict.fromkeys((*(each.port for each in cluster.listeners), *stats)))


def backends(cluster: Cluster, node: Node) -> tuple[Opening, ...]:
    """Return the ports of backends on a node, which the proxies of the other nodes connect to."""
    own = {node.name, str(node.address)}
    found = (each.port for listener in cluster.listeners for each in listener.backends if each.host in own)
    return tuple(Opening(port=port) for port in dict.fromkeys(found)) if len(cluster.nodes) > 1 else ()


def packets(cluster: Cluster, node: Node, interface: str | None, opening: Opening, to: Address) -> Iterator[Packet]:
    """Yield the packets by which an opening is judged: what the other nodes send, who are clients like any.

    `to` is the address that connections are made to.
    """
    others = [each for each in cluster.nodes if each != node]
    family = to.version if opening.port is not None else cluster.vip.address.version
    destination = to if opening.port is not None else opening.destination or node.source or node.address
    senders: list[Address | None] = [each.source or each.address for each in others]
    for sender in [opening.source] if opening.source else senders or [None]:
        known = sender is not None and sender.version == family
        yield Packet(family, interface, sender if known else None, destination, opening.port)


def sent(cluster: Cluster, node: Node, interface: str | None) -> Iterator[Packet]:
    """Yield the adverts that a node sends to the others, as its own firewall sees them."""
    family = cluster.vip.address.version
    source = node.source or node.address
    others = [each.source or each.address for each in cluster.nodes if each != node]
    for to in [GROUPS[family]] if others and cluster.vrrp.mode == "multicast" else others:
        yield Packet(family, interface, source if source.version == family else None, to, hook="output")


def judged(
    found: Firewall, cluster: Cluster, node: Node, interface: str | None, openings: Iterable[Opening]
) -> dict[Opening, Judgement]:
    """Return whether each of the openings is there: for a port of a listener, to every VIP."""
    return {
        each: found.judge_all(p for vip in cluster.vips for p in packets(cluster, node, interface, each, vip.address))
        for each in openings
    }


def missing(
    found: Firewall, cluster: Cluster, node: Node, interface: str | None, needed: Iterable[Opening]
) -> tuple[Directive, ...]:
    """Return what has to be opened on a node, and where: only what is surely closed, by a chain for what comes in."""
    return tuple(
        Directive(blocker.program, blocker.place, opening)
        for opening, judgement in judged(found, cluster, node, interface, needed).items()
        if judgement.answer == "closed"
        for blocker in judgement.blockers
        if not blocker.early
    )


def spare(found: Firewall, needed: Collection[Opening]) -> tuple[Directive, ...]:
    """Return what exlb has opened on a node and nobody needs any more."""
    return tuple(each for each in found.opened if each.opening not in needed)


def told(directives: Iterable[Directive]) -> Iterator[str]:
    """Yield directives for people, those of one place together."""
    places: dict[str, list[str]] = {}
    for each in directives:
        places.setdefault(each.where, []).append(str(each.opening))
    return (f"{', '.join(openings)} in {where}" for where, openings in places.items())


def passing(directives: Iterable[Directive]) -> tuple[Program, ...]:
    """Return the firewalls of some directives in which nothing stays open over a boot."""
    return tuple(dict.fromkeys(each.program for each in directives if each.program not in PERMANENT))


def command(directive: Directive) -> str:
    """Return what an operator types on the node to open it for good."""
    opening = directive.opening
    address = opening.source or opening.destination
    family = f"ip{'v' if directive.program == 'firewalld' else ''}{address.version if address else 4}"
    side = "source" if opening.source else "destination"
    match directive.program:
        case "firewalld":
            rich = f"rule family={family} {side} address={address} protocol value={VRRP_PROTOCOL} accept"
            what = f"--add-port={opening.port}/tcp" if opening.port else f"--add-rich-rule='{rich}'"
            zone = f"--zone={directive.place}"
            return f"firewall-cmd {zone} {what} && firewall-cmd --permanent {zone} {what}"
        case "ufw":
            vrrp = f"proto vrrp {'from' if opening.source else 'to'} {address}"
            return f"ufw prepend allow {f'{opening.port}/tcp' if opening.port else vrrp}"
        case "iptables":
            vrrp = f"-p {VRRP_PROTOCOL} {'-s' if opening.source else '-d'} {address}"
            rule = f"-p tcp --dport {opening.port}" if opening.port else vrrp
            return f"{directive.place}tables -I INPUT {rule} -j ACCEPT"
        case "nftables":
            ip = "ip6" if address is not None and address.version == 6 else "ip"
            vrrp = f"{ip} {'saddr' if opening.source else 'daddr'} {address} meta l4proto {VRRP_PROTOCOL}"
            rule = f"tcp dport {opening.port}" if opening.port else vrrp
            return f"nft insert rule {directive.place.replace('/', ' ')} {rule} accept"


def letting_out(blocker: Blocker) -> str:
    """Return what an operator types on the node to have its adverts sent; for good, that has to be in its files too."""
    match blocker.program:
        case "firewalld":
            return "firewall-cmd --list-all-policies and --direct --get-all-rules tell which rule it is"
        case "ufw":
            return "ufw prepend allow out proto vrrp to any"
        case "iptables":
            return f"{blocker.place}tables -I OUTPUT -p {VRRP_PROTOCOL} -j ACCEPT"
        case "nftables":
            return f"nft insert rule {blocker.place.replace('/', ' ')} meta l4proto {VRRP_PROTOCOL} accept"


# The walk of a packet


_Outcome = Literal["accept", "drop", "end"]
_ELSEWHERE = object()  # a field of a protocol that the packet is not of: no rule about it matches
_TCP_FLAGS = {name: 1 << place for place, name in enumerate(("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"))}
_PROTOCOLS = {"vrrp": VRRP_PROTOCOL, "tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58, "icmpv6": 58, "igmp": 2}
_OTHER_PAYLOADS = frozenset({"udp", "udplite", "icmp", "icmpv6", "igmp", "sctp", "dccp", "esp", "ah", "arp", "vlan"})
# What a rule may do besides deciding; all others are conditions that are not understood.
_HOOKS: Mapping[str, Hook] = {"INPUT": "input", "OUTPUT": "output"}  # of the chains of iptables
_DEEDS = frozenset({"counter", "last", "log", "mangle", "notrack", "ct helper", "flow"})
_VERDICTS = ("accept", "drop", "reject", "return", "jump", "goto", "continue", "vmap", "queue", "xt-target")


class _Walk:
    """One packet on its way through one table; `visited` are the chains that it may have come to, in order."""

    def __init__(self, table: Table, packet: Packet) -> None:
        self._table = table
        self._packet = packet
        self._known: dict[str, frozenset[_Outcome]] = {}
        self._of_services = False
        self.visited: list[str] = []

    def base(self, chain: Chain) -> frozenset[_Outcome]:
        """Return how it may end in a chain that a hook leads to: accept or drop, or both where it is not known."""
        outcomes = self._through(chain.rules)
        end: frozenset[_Outcome] = frozenset({"drop" if chain.policy == "drop" else "accept"})
        return (outcomes - {"end"}) | (end if "end" in outcomes else frozenset())

    def blocker(self, name: str, *, early: bool = False) -> Blocker:
        """Return who has the rules that the packet went through, and where they can be changed."""
        if early:
            return Blocker("nftables", f"{self._table.family}/{self._table.name}/{name}", early=True)
        zones = [found[1] for each in self.visited if (found := _ZONE.fullmatch(each))]
        if self._table.name == "firewalld" or zones:
            return Blocker("firewalld", zones[-1] if zones else "-")
        if any(each.startswith("ufw") for each in self.visited):
            return Blocker("ufw", "-")
        if self._table.name == "filter" and name in _HOOKS and self._table.family != "inet":
            return Blocker("iptables", self._table.family)
        return Blocker("nftables", f"{self._table.family}/{self._table.name}/{name}")

    def _chain(self, name: str) -> frozenset[_Outcome]:
        if name not in self._known:
            self.visited.append(name)
            chain = self._table.chains.get(name)
            outer, self._of_services = self._of_services, name.startswith(_SERVICES)
            self._known[name] = self._through(chain.rules) if chain else frozenset({"accept", "drop", "end"})
            self._of_services = outer
        return self._known[name]

    def _through(self, rules: Sequence[Sequence[Any]]) -> frozenset[_Outcome]:
        """Return how the packet may leave a list of rules; `end` is past the last of them, or a return."""
        outcomes: set[_Outcome] = set()
        for rule in rules:
            applies, verdict = self._rule(rule)
            if applies is False or verdict is None:
                continue
            ends, goes_on = verdict
            outcomes |= ends
            if applies and not goes_on:
                return frozenset(outcomes)
        return frozenset(outcomes | {"end"})

    def _rule(self, rule: Sequence[Any]) -> tuple[bool | None, tuple[frozenset[_Outcome], bool] | None]:
        """Return whether a rule applies, None where that is not known, and what it decides if it does."""
        applies: bool | None = True
        verdict = None
        for statement in rule:
            # What nft has no JSON for it gives in words.
            kind, body = next(iter(statement.items())) if isinstance(statement, dict) else (statement, None)
            if kind == "match":
                matches = self._matches(body)
            elif self._of_services and kind == "xt" and isinstance(body, dict) and body.get("name") in _MARKED:
                matches = False
            elif kind in _VERDICTS or _is_foreign(kind, body):
                verdict = self._verdict(kind, body)
                continue
            else:
                matches = True if self._is_deed(kind, body) or _is_comment(kind, body) else None
            if matches is False:
                return False, None
            applies = None if matches is None else applies
        return applies, verdict

    def _is_deed(self, kind: str, body: Any) -> bool:
        """Tell whether a statement only does something, whatever the packet is.

        What keeps a limit or a count for each element of a set is as much a condition as that alone.
        Source: libnftables-json(5) SET, METER; nft(8) SET STATEMENT.
        """
        if kind not in ("set", "meter"):
            return kind in _DEEDS
        own = body.get("stmt", [])
        of_set = self._table.kept.get(str(body["set"]).removeprefix("@"), ()) if "set" in body else ()
        kept = [*(own if isinstance(own, list) else [own]), *of_set]
        return all(isinstance(each, dict) and _DEEDS.issuperset(each) for each in kept)

    def _verdict(self, kind: str, body: Any) -> tuple[frozenset[_Outcome], bool]:
        """Return how a packet may leave here by a verdict, and whether it may also go on to the next rule."""
        match kind:
            case "accept":
                return frozenset({"accept"}), False
            case "drop" | "reject":
                return frozenset({"drop"}), False
            case "return":
                return frozenset({"end"}), False
            case "continue":
                return frozenset(), True
            case "jump":
                outcomes = self._chain(body["target"])
                return outcomes - {"end"}, "end" in outcomes
            case "goto":
                return self._chain(body["target"]), False
            case "vmap":
                return self._mapped(body)
            case _:
                return frozenset({"accept", "drop"}), True

    def _mapped(self, body: Any) -> tuple[frozenset[_Outcome], bool]:
        data = body["data"]
        pairs = self._table.sets.get(data[1:]) if isinstance(data, str) else data.get("set")
        value = self._value(body["key"])
        outcomes: frozenset[_Outcome] = frozenset()
        if pairs is None:
            return frozenset({"accept", "drop"}), True
        for key, verdict in pairs:
            matches = False if value is _ELSEWHERE else self._within(value, key)
            if matches is False:
                continue
            kind, target = next(iter(verdict.items()))
            ends, goes_on = self._verdict(kind, target)
            outcomes |= ends
            if matches:
                return outcomes, goes_on
        return outcomes, True

    def _matches(self, body: Any) -> bool | None:
        value = self._value(body["left"])
        if value is _ELSEWHERE:
            return False
        within = self._within(value, body["right"])
        match body["op"]:
            case "==" | "in":
                return within
            case "!=":
                return None if within is None else not within
            case "<" | ">" | "<=" | ">=" if isinstance(value, int) and isinstance(body["right"], int):
                right = body["right"]
                return {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}[body["op"]]
        return None

    def _value(self, left: Any) -> Any:
        """Return what a packet has where a rule looks; None where that is not known."""
        if not isinstance(left, dict):
            return None
        kind, body = next(iter(left.items()))
        match kind:
            case "payload" if "field" in body:
                return self._payload(body["protocol"], body["field"])
            case "meta":
                return self._meta(body["key"])
            case "ct" if body["key"] == "state":
                return "new"
            case "ct" if body["key"] == "status":
                return "none"
            case "fib" if body["result"] == "type":
                there, here = ("local", "unicast") if self._packet.hook == "input" else ("unicast", "local")
                if "daddr" not in body["flags"]:
                    return here
                destination = self._packet.destination
                return None if destination is None else "multicast" if destination.is_multicast else there
            case "&":
                value, bits = self._value(body[0]), _bits(body[1])
                if isinstance(value, int):
                    return None if bits is None else value & bits
                return value if value is _ELSEWHERE else None
            case "concat":
                values = tuple(self._value(each) for each in body)
                return _ELSEWHERE if _ELSEWHERE in values else values
        return None

    def _payload(self, protocol: str, name: str) -> Any:
        packet = self._packet
        if protocol in ("ip", "ip6"):
            if (protocol == "ip") != (packet.family == 4):
                return _ELSEWHERE
            fields = {"saddr": packet.source, "daddr": packet.destination, "version": packet.family}
            return packet.protocol if name in ("protocol", "nexthdr") else fields.get(name)
        if protocol in ("tcp", "th"):
            if packet.port is None:
                return _ELSEWHERE if protocol == "tcp" else None
            return {"dport": packet.port, "flags": _TCP_FLAGS["syn"]}.get(name)
        return _ELSEWHERE if protocol in _OTHER_PAYLOADS else None

    def _meta(self, key: str) -> Any:
        match key:
            case "iifname" | "iif" if self._packet.hook == "input":
                return self._packet.interface
            case "oifname" | "oif" if self._packet.hook == "output":
                return self._packet.interface
            case "l4proto":
                return self._packet.protocol
            case "mark" if self._of_services:
                return 0
            case "nfproto":
                return f"ipv{self._packet.family}"
            case "protocol":
                return "ip" if self._packet.family == 4 else "ip6"
        return None

    def _within(self, value: Any, right: Any) -> bool | None:
        """Tell whether a value is one of those that a rule names; None where that is not known."""
        if value is None:
            return None
        if isinstance(right, str) and right.startswith("@"):
            right = {"set": self._table.sets.get(right[1:])}
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
            if right is None:
                return None
        if isinstance(right, list):
            found = [self._within(value, each) for each in right]
            return True if True in found else None if None in found else False
        if isinstance(right, dict):
            return self._within_one(value, right)
        return _is(value, right)

    def _within_one(self, value: Any, right: Any) -> bool | None:
        kind, body = next(iter(right.items()))
        match kind:
            case "elem":
                return self._within(value, body["val"])
            case "range":
                low, high = _like(value, body[0]), _like(value, body[1])
                return None if low is None or high is None else bool(low <= value <= high)
            case "prefix" if hasattr(value, "version"):
                return value in ip_network(f"{body['addr']}/{body['len']}", strict=False)
            case "concat" if isinstance(value, tuple):
                found = [self._within(one, other) for one, other in zip(value, body, strict=False)]
                return False if False in found else None if None in found else True
            case "|":
                bits = _bits(right)
                return None if bits is None else bool(value == bits)
        return None


# The chains of kube-proxy and the kubelet: their marks and sets (ipsets) are of packets to a Service, which no node's
# address and no VIP is. Source: Kubernetes pkg/proxy/ipvs/proxier.go, pkg/kubelet/kubelet_network_linux.go.
_SERVICES = "KUBE-"
_MARKED = frozenset({"mark", "set"})
_ZONE = re.compile(r"(?:filter_)?IN_(?!policy_)(.+?)(?<!_pre)(?<!_log)(?<!_deny)(?<!_allow)(?<!_post)")


def _is_comment(kind: str, body: Any) -> bool:
    """Tell whether a match of iptables is one that always applies."""
    return kind == "xt" and isinstance(body, dict) and body.get("name") == "comment"


def _is_foreign(kind: str, body: Any) -> bool:
    """Tell whether a statement is a target of iptables that nft has no words for: nobody knows what it decides."""
    return kind == "xt" and (not isinstance(body, dict) or body.get("type") == "target")


def _bits(mask: Any) -> int | None:
    """Return a mask of TCP flags as a number."""
    if isinstance(mask, int):
        return mask
    if isinstance(mask, str):
        return _TCP_FLAGS.get(mask)
    parts = mask.get("|") if isinstance(mask, dict) else mask
    found = [_bits(each) for each in parts] if isinstance(parts, list) else [None]
    return None if None in found else sum(set(filter(None, found)))


def _like(value: Any, text: Any) -> Any:
    """Return what a rule says as a thing of the kind of a value; None where it is none."""
    try:
        if isinstance(value, int):
            return _PROTOCOLS.get(text, _TCP_FLAGS.get(text)) if isinstance(text, str) and text in _NAMES else int(text)
        return ip_address(text) if hasattr(value, "version") else text
    except (TypeError, ValueError):
        return None


_NAMES = frozenset({*_PROTOCOLS, *_TCP_FLAGS})


def _is(value: Any, right: Any) -> bool | None:
    if isinstance(value, str):
        return value.startswith(right[:-1]) if str(right).endswith("*") else bool(value == right)
    same = _like(value, right)
    if same is None and isinstance(right, str) and isinstance(value, int):
        return False  # the name of a protocol that is none of ours
    if hasattr(value, "version") and isinstance(right, str) and "/" in right:
        return value in ip_network(right, strict=False)
    return None if same is None else bool(value == same)


# Parsing


def parse(text: str) -> Firewall:
    """Parse what `node/probe.sh` says of the firewall: a word that names the source, and a line of it, on every line.

    A ruleset that is not what it is said to be leaves the firewall unread: the rules are somebody else's, and no reason
    to do nothing else on the node. Raises FactsError where what exlb has opened is not understood.
    """
    lines: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if line.strip():
            source, _, rest = line.partition(" ")
            lines.setdefault(source, []).append(rest)
    opened = _directives(lines.get("opened", ()))
    try:
        return Firewall(_tables(lines), opened, " ".join(lines.get("unread", ())))
    except FactsError as error:
        return Firewall((), opened, error.message)


def _tables(lines: Mapping[str, Sequence[str]]) -> tuple[Table, ...]:
    # nft does not know all of what iptables has written into its tables, iptables-save does.
    own = {(each.family, each.name): each for listing in lines.get("nft", ()) for each in _nft_tables(listing)}
    own |= {(each.family, each.name): each for each in _saved(lines, "")}
    return (*own.values(), *_saved(lines, "-legacy"))


def parse_opened(text: str) -> tuple[Directive, ...]:
    """Parse the list that a node keeps of what exlb has opened, a directive per line. Raises FactsError."""
    return _directives(filter(None, text.split("\n")))


def _directives(lines: Iterable[str]) -> tuple[Directive, ...]:
    return tuple(map(_directive, lines))


def _saved(lines: Mapping[str, Sequence[str]], variant: str) -> list[Table]:
    """Return the tables of one variant of iptables, of both families."""
    return [
        Table(family, name, _chains(found))
        for source, family in (("iptables", "ip"), ("ip6tables", "ip6"))
        for name, found in parse_tables(lines.get(f"{source}{variant}", ())).items()
    ]


def _chains(found: dict[str, tuple[str | None, list[list[Any]]]]) -> dict[str, Chain]:
    return {
        name: Chain(_HOOKS.get(name), policy.lower() if policy else None, rules)
        for name, (policy, rules) in found.items()
    }


def _directive(line: str) -> Directive:
    programs: dict[str, Program] = {each: each for each in get_args(Program)}
    try:
        program, place, kind, *rest = line.split()
        match kind, rest:
            case "tcp", [port]:
                opening = Opening(port=int(port))
            case "vrrp", ["from", source]:
                opening = Opening(source=ip_address(source))
            case "vrrp", ["to", destination]:
                opening = Opening(destination=ip_address(destination))
            case _:
                raise ValueError(kind)
        return Directive(programs[program], place, opening)
    except (KeyError, ValueError) as error:
        raise FactsError(f"what exlb has opened in the firewall is not understood: {line!r}") from error


def _hook(chain: Mapping[str, Any]) -> str | None:
    """Return the hook that leads to a chain; none to one that only translates addresses before they are looked at."""
    hook = chain.get("hook")
    return None if hook == "prerouting" and chain.get("type") == "nat" else hook


# An older nft does not tell what a rule, or a set, keeps for each element: 0.9.8 of Debian 11.
_TELLS_KEPT = Feature("kept", "nftables 2021-07, `json: add set statement list support`", since=(1, 0, 1))


def _nft_tables(listing: str) -> Iterator[Table]:
    """Yield the tables of one `nft -j list`, whole lines of JSON each."""
    try:
        entries = [next(iter(each.items())) for each in json.loads(listing)["nftables"]]
        version = next((parse_version(body["version"]) for kind, body in entries if kind == "metainfo"), None)
        untold = () if _TELLS_KEPT.of(version) else ({"untold": None},)
        for table in [body for kind, body in entries if kind == "table" and "dormant" not in body.get("flags", ())]:
            own = [
                (kind, body)
                for kind, body in entries
                if body.get("table") == table["name"] and body.get("family") == table["family"]
            ]
            rules: dict[str, list[Any]] = {body["name"]: [] for kind, body in own if kind == "chain"}
            for kind, body in own:
                if kind == "rule":
                    rules[body["chain"]].append(body["expr"])
            chains = {
                body["name"]: Chain(_hook(body), body.get("policy"), rules[body["name"]])
                for kind, body in own
                if kind == "chain"
            }
            listed = [body for kind, body in own if kind in ("set", "map")]
            sets = {body["name"]: body.get("elem", []) for body in listed}
            kept = {body["name"]: body.get("stmt", untold) for body in listed}
            yield Table(table["family"], table["name"], chains, sets, kept)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FactsError(f"`nft -j list` is not understood: {error}: {listing[:100]!r}") from error
