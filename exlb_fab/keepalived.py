"""keepalived.conf -> what it says, and what a change from one text to another costs. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple

from exlb_fab.dump import Script

Address = IPv4Address | IPv6Address
Kind = Literal["none", "compatible", "incompatible", "restart"]

SEVERITY: tuple[Kind, ...] = ("none", "compatible", "incompatible", "restart")
DEFAULT_PRIORITY = 100  # keepalived.conf(5), priority
DEFAULT_ADVERT_SECONDS = 1.0  # keepalived.conf(5), advert_int


class Rule(NamedTuple):
    """The class of some keywords, and where that is known from; a block's name stands for all that is in the block."""

    kind: Kind
    keywords: str
    source: str


# What is not in here is incompatible: a change that nobody has looked at is asked about, not slipped in.
RULES = (
    Rule(
        "restart",
        "net_namespace net_namespace_ipvs instance nftables nftables_ipvs tmp_config_directory disable_local_igmp",
        "core/main.c reload_config: `Cannot change ... at a reload - please restart`, and all of the old goes on",
    ),
    Rule(
        "restart",
        "enable_snmp_keepalived enable_snmp_vrrp enable_snmp_rfc enable_snmp_rfcv2 enable_snmp_rfcv3 snmp_socket",
        "vrrp/vrrp_daemon.c start_vrrp: the SNMP agent is set up at a start, never at a reload",
    ),
    Rule(
        "incompatible",
        "virtual_router_id version vrrp_version auth_type auth_pass advert_int",
        "vrrp/vrrp.c vrrp_in_chk drops adverts in which it differs (RFC 3768 7.1; version 3 does not check advert_int)",
    ),
    Rule(
        "incompatible",
        "virtual_ipaddress",
        "vrrp/vrrp.c vrrp_in_chk drops adverts with another number of VIPs or without one of its own",
    ),
    Rule(
        "incompatible",
        "unicast_peer unicast_src_ip unicast_ttl check_unicast_src vrrp_check_unicast_src "
        "mcast_src_ip mcast_dst_ip vrrp_mcast_group4 vrrp_mcast_group6",
        "keepalived.conf(5): where adverts go and who is listened to; `Expected %sicast packet but received`",
    ),
    Rule(
        "incompatible",
        "interface vrf use_vmac vmac_xmit_base use_ipvlan native_ipv6",
        "vrrp/vrrp.c vrrp_exist: a reload keeps the state of the same VRID, family, interface and VMAC only",
    ),
    Rule(
        "incompatible",
        "down_timer_adverts vrrp_down_timer_adverts v3_checksum_as_v2 old_unicast_checksum strict_mode vrrp_strict",
        "keepalived.conf(5): the down timer is the same on all routers; the others decide which adverts are valid",
    ),
    Rule(
        "compatible",
        "state priority",
        "vrrp/vrrp.c vrrp_in_chk checks no priority; a reload keeps the state (vrrp_complete_init)",
    ),
    Rule(
        "compatible",
        "vrrp_script track_script vrrp_track_process track_process vrrp_track_file track_file track_interface",
        "keepalived.conf(5): a check changes the node's own priority or puts it in FAULT; adverts stay valid",
    ),
    Rule(
        "compatible",
        "nopreempt preempt preempt_delay",
        "keepalived.conf(5): what a router does when it hears a lower priority",
    ),
    Rule(
        "compatible",
        "router_id notification_email notification_email_from smtp_server smtp_helo_name smtp_connect_timeout "
        "smtp_alert smtp_alert_vrrp no_email_faults",
        "keepalived.conf(5): names and mails; not in an advert",
    ),
    Rule(
        "compatible",
        "notify notify_master notify_backup notify_fault notify_stop notify_deleted notify_master_rx_lower_pri "
        "notify_priority_changes notify_fifo notify_fifo_script vrrp_notify_fifo vrrp_notify_fifo_script "
        "vrrp_notify_priority_changes script_user enable_script_security",
        "keepalived.conf(5): programs that keepalived runs; not in an advert",
    ),
    Rule(
        "compatible",
        "garp_group garp_master_delay garp_master_repeat garp_master_refresh garp_master_refresh_repeat "
        "garp_lower_prio_delay garp_lower_prio_repeat garp_extra_if vrrp_garp_master_delay vrrp_garp_master_repeat "
        "vrrp_garp_master_refresh vrrp_garp_master_refresh_repeat vrrp_garp_lower_prio_delay "
        "vrrp_garp_lower_prio_repeat vrrp_garp_extra_if vrrp_garp_interval vrrp_gna_interval vrrp_min_garp",
        "keepalived.conf(5): ARP and neighbour announcements of a master, not VRRP",
    ),
    Rule(
        "compatible",
        "virtual_ipaddress_excluded",
        "keepalived.conf(5): addresses that follow the VIPs and are not in an advert",
    ),
    Rule("compatible", "vrrp_startup_delay", "vrrp/vrrp_daemon.c start_vrrp: read at a start, ignored by a reload"),
)
CLASSES: dict[str, Kind] = {keyword: rule.kind for rule in RULES for keyword in rule.keywords.split()}

_WORD = re.compile(r'[#!].*|(?:\\.|"(?:\\.|[^"\\])*"?|[^\s"#!\\])+')
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]*)?")
_TRACKED = ("track_script", "track_process")
_CHECKS = ("vrrp_script", "vrrp_track_process")
_PLAIN = ("vrrp_instance", "global_defs", "authentication")  # blocks that a sentence need not name


class Statement(NamedTuple):
    """One line of meaning: the headers of the blocks around it, outermost first, and its words."""

    path: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeepalivedChange:
    """What a change of keepalived.conf is: the worst class in it, and why, the worst reasons first.

    `deaf` tells that old and new do not hear each other, which a restart may mean as well. `joining` and `leaving` are
    unicast peers that only one side lists; they alone are compatible, and who plans for all nodes decides about them.
    """

    kind: Kind
    reasons: tuple[str, ...] = ()
    deaf: bool = False
    joining: frozenset[Address] = frozenset()
    leaving: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a keepalived.conf asks of the instance that has a VIP; None where it leaves that to keepalived.

    `weights` are those of the checks that it tracks, by name; 0 is FAULT. `scripts` are those that are a script.
    """

    router_id: int | None
    interface: str | None
    priority: int
    advert_seconds: float
    preempts: bool
    authenticated: bool
    vips: frozenset[Address]
    peers: frozenset[Address]
    weights: Mapping[str, int]
    scripts: Mapping[str, Script] = field(default_factory=dict)


# The files of a cluster are asked many questions, and there are few of them.
@functools.lru_cache(maxsize=64)
def statements(text: str) -> frozenset[Statement]:
    """Return what a keepalived.conf states, whatever its order, blanks and comments; garbage gives some statements.

    Files that it includes are not read; `@` lines and definitions are statements like others. Source: keepalived's
    lib/parser.c (a brace is a word of its own, quotes are double, `#` and `!` begin comments, `\\` continues a line).
    """
    found: set[Statement] = set()
    path: list[str] = []
    words: list[str] = []

    def end() -> None:
        if words:
            found.add(Statement(tuple(path), tuple(words)))
            words.clear()

    continued = False
    for line in text.split("\n"):
        read = [word for word in _WORD.findall(line) if word[0] not in "#!"]
        if read and read[0] != "{" and not continued:
            end()
        for word in read:
            if word == "{":
                path.append(" ".join(words))
                words.clear()
            elif word == "}":
                end()
                del path[-1:]
            else:
                words.append(word)
        continued = bool(read or continued) and (len(line) - len(line.rstrip("\\"))) % 2 == 1
    end()
    return frozenset(found)


def has_instance(text: str) -> bool:
    """Tell whether keepalived takes part in VRRP with this text; an `include` counts: nobody knows what is in it."""
    found = statements(text)
    return bool(_instances(found)) or any(word.startswith("include") for each in found for word in each.words[:2])


def peers(text: str) -> frozenset[Address]:
    """Return the unicast peers of all instances."""
    return _addresses(each for each in statements(text) if each.path[-1:] == ("unicast_peer",))


def sends_to(text: str, other: str) -> bool:
    """Tell whether adverts of one text reach a router with another; so it is said where the files do not say it.

    Peers are compared with the address that the other sends from itself: nodes may have a network of their own for it.
    """
    sources = _addresses(
        each._replace(words=each.words[1:])
        for each in statements(other)
        if each.words[0] == "unicast_src_ip" and len(each.words) > 1
    )
    return not sources or not peers(text) or bool(sources & peers(text))


def asked(text: str, vip: Address) -> Asked | None:
    """Return what a text asks of the instance with a VIP, None where none has it."""
    found = statements(text)
    for header, stated in _instances(found).items():
        inside = [each for each in found if header in each.path]
        vips = _addresses(each for each in inside if each.path[-1] == "virtual_ipaddress")
        if vip in vips:
            said = {words[0]: words[1] for words in stated if len(words) > 1}
            router_id = said.get("virtual_router_id", "")
            tracked = [each.words for each in inside if each.path[-1] in _TRACKED]
            return Asked(
                router_id=int(router_id) if router_id.isdecimal() else None,
                interface=said.get("interface"),
                priority=_priority(stated),
                advert_seconds=_advert_seconds(stated),
                preempts=_preempts(stated),
                authenticated=any(each.path[-1] == "authentication" for each in inside),
                vips=vips,
                peers=_addresses(each for each in inside if each.path[-1] == "unicast_peer"),
                weights={words[0]: _weight(found, words) for words in tracked},
                scripts={name: script for name, *_ in tracked if (script := _script(found, name))},
            )
    return None


def _weight(found: frozenset[Statement], tracked: Sequence[str]) -> int:
    """Return the weight of a check: what it is tracked with, or else what it was defined with, or else none.

    Source: keepalived.conf(5) `track_script`, `vrrp_script`.
    """
    name, *behind = tracked
    blocks = {f"{kind} {name}" for kind in _CHECKS}
    defined = [each.words for each in found if blocks & set(each.path)]
    for words in (behind, *defined):
        match words:
            case ["weight", weight, *_] if re.fullmatch(r"[+-]?[0-9]+", weight):
                return int(weight)
    return 0


def _script(found: frozenset[Statement], name: str) -> Script | None:
    """Return what a check is defined as, None where that is no script; what is stated twice is not told.

    Source: keepalived.conf(5) `vrrp_script`: quotes are around a whole command; what is in quotes within it, or behind
    a backslash, or a definition (`$NAME`, `~SEQ`), is not looked into.
    """
    stated = [each.words for each in found if f"vrrp_script {name}" in each.path]
    if not stated:
        return None

    def said(keyword: str) -> str:
        values = [words[1:] for words in stated if words[0] == keyword]
        return values[0][0] if len(values) == 1 and len(values[0]) == 1 else ""

    def whole(keyword: str) -> int | None:
        return int(value) if (value := said(keyword)).isdecimal() else None

    command = said("script").removeprefix('"').removesuffix('"')
    return Script(
        command=None if set("'\"\\$~") & set(command) else tuple(command.split()) or None,
        interval=whole("interval"),
        timeout=whole("timeout"),
        fall=whole("fall"),
        rise=whole("rise"),
    )


def preempting(text: str) -> bool:
    """Tell whether an instance takes the VIP back from a lower priority.

    Source: keepalived.conf(5) `nopreempt`, which does not work with the initial state MASTER.
    """
    return any(map(_preempts, _instances(statements(text)).values()))


def priority(text: str) -> int:
    """Return the highest priority of the instances, 100 where none says one, 0 without an instance.

    Source: keepalived.conf(5) `priority`.
    """
    return max(map(_priority, _instances(statements(text)).values()), default=0)


def advert_seconds(text: str) -> float | None:
    """Return the longest interval between adverts of the instances; None without one. What is no number is left out."""
    return max(map(_advert_seconds, _instances(statements(text)).values()), default=None)


def classify(old: str, new: str) -> KeepalivedChange:
    """Return what it means for one node to go from one keepalived.conf to another.

    A first configuration is compatible, because nobody hears it yet. Where both have one instance, what that is called
    is no more than a name. No reason shows a password.
    """
    before, after = statements(old), statements(new)
    if before == after:
        return KeepalivedChange("none")
    if not has_instance(old):
        return KeepalivedChange("compatible", ("its first configuration",))
    if not has_instance(new):
        return KeepalivedChange("incompatible", ("no vrrp_instance any more",), deaf=True)
    parts = []
    match [*_instances(before)], [*_instances(after)]:
        case [was], [becomes]:
            before, after = _unnamed(before, was), _unnamed(after, becomes)
            if was != becomes:  # a reload knows it again by VRID, family and interface: vrrp/vrrp.c vrrp_exist
                parts.append(KeepalivedChange("compatible", ("vrrp_instance changes its name",)))
    places: dict[tuple[tuple[str, ...], str], tuple[list[Statement], list[Statement]]] = {}
    for each in sorted(before ^ after):
        gone, come = places.setdefault(_place(each), ([], []))
        (gone if each in before else come).append(each)
    for (path, _), (gone, come) in places.items():
        if path[-1:] == ("unicast_peer",):
            sides = [any(each.path == path for each in side) for side in (before, after)]
            parts.append(_change_of_peers(gone, come, unicast=sides))
        else:
            parts.append(_change(gone, come))
    parts.sort(key=lambda part: SEVERITY.index(part.kind), reverse=True)
    return KeepalivedChange(
        parts[0].kind,
        tuple(dict.fromkeys(reason for part in parts for reason in part.reasons)),
        deaf=any(part.deaf for part in parts),
        joining=frozenset(address for part in parts for address in part.joining),
        leaving=frozenset(address for part in parts for address in part.leaving),
    )


def _change(gone: Sequence[Statement], come: Sequence[Statement]) -> KeepalivedChange:
    """Return what statements of one place mean; another network namespace has other interfaces as well."""
    name = _name((*gone, *come)[0])
    kind = CLASSES.get(name, "incompatible")
    return KeepalivedChange(kind, _reasons(gone, come), deaf=kind == "incompatible" or name == "net_namespace")


def _change_of_peers(
    gone: Sequence[Statement], come: Sequence[Statement], *, unicast: Sequence[bool]
) -> KeepalivedChange:
    """Return what a change of one list of peers means; `unicast` tells whether it had and has any."""
    if not all(unicast):
        reason = "unicast -> multicast" if unicast[0] else "multicast -> unicast"
        return KeepalivedChange("incompatible", (reason,), deaf=True)
    leaving, joining = _addresses(gone), _addresses(come)
    if leaving & joining or len(leaving) < len(gone) or len(joining) < len(come):
        return KeepalivedChange("incompatible", _reasons(gone, come), deaf=True)
    return KeepalivedChange("compatible", _reasons(gone, come), joining=joining, leaving=leaving)


def _reasons(gone: Sequence[Statement], come: Sequence[Statement]) -> tuple[str, ...]:
    """Return in words what goes and what comes at one place: values of known keywords, never a password."""
    first = (*gone, *come)[0]
    path, keyword = _place(first)
    blocks = [part for part in path if part not in _PLAIN]
    if any("auth_pass" in word for each in (*gone, *come) for word in (*each.path, *each.words)):
        return ("auth_pass changes",)
    if "authentication" in " ".join(path) and keyword != "auth_type":
        return ("authentication changes",)
    if not _name(first):
        return (" ".join((*blocks, re.sub(r"(?<=\w)\W.*", "", keyword), "changes")),)
    label = " ".join((*blocks, *([keyword] if keyword else [])))
    was, becomes = ([" ".join(each.words[1 if keyword else 0 :]) for each in side] for side in (gone, come))
    if len(was) == len(becomes) == 1 and was[0] and becomes[0]:
        return (f"{label} {was[0]} -> {becomes[0]}",)
    signed = [("-", each) for each in was] + [("+", each) for each in becomes]
    return tuple(f"{label} {sign}{value}" if value else f"{sign}{label}" for sign, value in signed)


def _place(statement: Statement) -> tuple[tuple[str, ...], str]:
    """Return where a statement stands: its blocks, and its keyword unless it is an item of a list."""
    listed = statement.path[-1:] and statement.path[-1] in CLASSES
    return statement.path, "" if listed else statement.words[0]


def _name(statement: Statement) -> str:
    """Return the outermost block or else the keyword that decides about a statement; nothing if it is unknown."""
    names = [*(part.partition(" ")[0] for part in statement.path), statement.words[0]]
    return next((name for name in names if name in CLASSES), "")


def _instances(found: frozenset[Statement]) -> dict[str, set[tuple[str, ...]]]:
    """Return what is stated in each vrrp_instance itself, by its header."""
    stated: dict[str, set[tuple[str, ...]]] = {}
    for each in found:
        for part in each.path:
            if "vrrp_instance" in part.split(" "):
                stated.setdefault(part, set()).update([each.words] if each.path[-1] == part else [])
    return stated


def _preempts(stated: set[tuple[str, ...]]) -> bool:
    return ("nopreempt",) not in stated or ("state", "MASTER") in stated


def _priority(stated: set[tuple[str, ...]]) -> int:
    values = [words[1] for words in stated if words[0] == "priority" and len(words) > 1]
    return max((int(each) for each in values if each.isdecimal()), default=DEFAULT_PRIORITY)


def _advert_seconds(stated: set[tuple[str, ...]]) -> float:
    values = [words[1].strip('"') for words in stated if words[0] == "advert_int" and len(words) > 1]
    return max((float(each) for each in values if _NUMBER.fullmatch(each)), default=DEFAULT_ADVERT_SECONDS)


def _unnamed(found: frozenset[Statement], name: str) -> frozenset[Statement]:
    return frozenset(
        each._replace(path=tuple("vrrp_instance" if part == name else part for part in each.path)) for each in found
    )


def _addresses(items: Iterable[Statement]) -> frozenset[Address]:
    """Return the addresses that items of a list begin with, without a prefix; what is none is left out."""
    found = set()
    for each in items:
        with suppress(ValueError):
            found.add(ip_address(each.words[0].strip('"').partition("/")[0]))
    return frozenset(found)
