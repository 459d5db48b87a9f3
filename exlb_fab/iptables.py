"""`iptables-save` -> chains whose rules are written like those of `nft -j`. Pure.

For nodes without nft, and for the rules of iptables-legacy, which nft does not see.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

from exlb_fab.errors import FactsError

_VERDICTS: dict[str, dict[str, Any]] = {
    "ACCEPT": {"accept": None},
    "DROP": {"drop": None},
    "REJECT": {"reject": None},
    "RETURN": {"return": None},
}
_DEEDS = frozenset({"LOG", "NFLOG", "MARK", "CONNMARK", "AUDIT", "NOTRACK", "CT", "SET"})
# They only say what follows: nothing depends on them alone.
_MODULES = frozenset({"tcp", "udp", "comment", "conntrack", "state", "multiport", "icmp", "icmp6", "addrtype"})
Chains = dict[str, tuple[str | None, list[list[Any]]]]


def parse_tables(lines: Iterable[str]) -> dict[str, Chains]:
    """Return by table and chain its policy (None for a user's chain) and its rules.

    A condition that is not understood becomes a statement of a kind that nobody knows. Raises FactsError.
    """
    tables: dict[str, Chains] = {}
    name = ""
    for line in lines:
        try:
            match line[:1]:
                case "*":
                    name = line[1:].strip()
                    tables[name] = {}
                case ":":
                    chain, policy, *_ = line[1:].split()
                    tables[name][chain] = (None if policy == "-" else policy, [])
                case "-" | "[":
                    words = shlex.split(line[line.index("-A ") :])
                    tables[name][words[1]][1].append(_rule(words[2:], set(tables[name])))
        except (ValueError, KeyError, IndexError) as error:
            raise FactsError(f"`iptables-save` said {line!r}") from error
    return tables


def _rule(words: list[str], chains: set[str]) -> list[Any]:
    """Return the statements of a rule, its conditions before its verdict."""
    conditions: list[Any] = []
    verdict: list[Any] = []
    protocol = "tcp"
    place, positive = 0, True
    while place < len(words):
        option, value = words[place], words[place + 1] if place + 1 < len(words) else ""
        place += 2
        op = "==" if positive else "!="
        positive = True
        match option:
            case "!":
                positive = False
                place -= 1
            case "-p":
                protocol = value
                conditions.append(_match({"meta": {"key": "l4proto"}}, op, value))
            case "-s" | "-d":
                field = "saddr" if option == "-s" else "daddr"
                conditions.append(_match(_payload("ip6" if ":" in value else "ip", field), op, value))
            case "-i" | "-o":
                key = "iifname" if option == "-i" else "oifname"
                conditions.append(_match({"meta": {"key": key}}, op, re.sub(r"\+$", "*", value)))
            case "--dport" | "--dports" | "--ports":
                ranges = {"set": [_range(each) for each in value.split(",")]}
                conditions.append(_match(_payload(protocol, "dport"), op, ranges))
            case "--ctstate" | "--state":
                conditions.append(_match({"ct": {"key": "state"}}, op, [each.lower() for each in value.split(",")]))
            case "--dst-type":
                conditions.append(_match({"fib": {"result": "type", "flags": ["daddr"]}}, op, value.lower()))
            case "-m":
                if value not in _MODULES:
                    conditions.append({"xt": {"type": "match", "name": value}})
            case "--comment" | "--reject-with":
                pass
            case "-j" | "-g":
                verdict += _target(option, value, chains)
                # What follows belongs to the target.
                if value not in chains:
                    break
            case _ if option.startswith("-"):
                conditions.append({"xt": {"type": "match", "name": option}})
                # An option may have no value at all.
                place -= value.startswith("-") or value == "!"
            case _:
                place -= 1
    return [*conditions, *verdict]


def _target(option: str, name: str, chains: set[str]) -> list[Any]:
    if name in chains:
        return [{"jump" if option == "-j" else "goto": {"target": name}}]
    if name in _VERDICTS:
        return [_VERDICTS[name]]
    return [] if name in _DEEDS else [{"xt-target": name}]


def _match(left: Any, op: str, right: Any) -> Any:
    return {"match": {"op": op, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> Any:
    return {"payload": {"protocol": protocol, "field": field}}


def _range(text: str) -> Any:
    low, mark, high = text.partition(":")
    return {"range": [int(low or 0), int(high or 65535)]} if mark else int(low)
