"""What a node said to the questions of a probe, understood: pure parsers.

Every parser raises FactsError with the first line that it does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface
from typing import TypeVar

from exlb_fab import certificates, dump, firewall, host, selinux
from exlb_fab.dump import Instance
from exlb_fab.errors import FactsError
from exlb_fab.facts import (
    Address,
    Facts,
    FileFact,
    Generations,
    History,
    Holder,
    Kept,
    KeptFile,
    Reply,
    Socket,
    System,
    Unit,
)
from exlb_fab.host import lines_of
from exlb_fab.platforms import parse_version
from exlb_fab.proxies import Proxy
from exlb_fab.system import DGRAM_QLEN, UNLIMITED, Link, Manager, Settings, UnitSettings, drop_in_path

T = TypeVar("T")

END_MARK = "exlb-probe-end"
_TIMED_OUT = "curl: (28)"  # curl(1), exit codes
_BODY = "body "


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said to one question."""

    text: str
    status: int


def parse_answers(text: str) -> dict[str, Answer]:
    """Return the answer to each question in the output of `node/probe.sh`.

    Raises FactsError where the output does not end as it should (the probe was cut short), or is not the probe's.
    """
    answers: dict[str, Answer] = {}
    question, lines, ended = "", list[str](), False
    # Only a newline ends a line here: what a file has in it, a form feed perhaps, must not begin one of the probe's.
    for line in text.split("\n"):
        match line[:2]:
            case "@ ":
                question, lines = line[2:], []
            case "| ":
                lines.append(line[2:])
            case "= ":
                answers[_asked(question)] = Answer("\n".join(lines), _status(line))
                question = ""
            case _ if line == END_MARK:
                ended = True
            case _:
                continue  # a profile that prints
    if not ended:
        # What a file has in it may be secret; what a shell says as it dies is not.
        said = "\n".join(line for line in text.split("\n") if not line.startswith("| ")).strip()
        raise FactsError(f"the probe ended early after {question or 'nothing'!r}: {said[-300:]!r}")
    return answers


def _asked(question: str) -> str:
    if not question.split():
        raise FactsError("the probe answers a question that nobody asked")
    return question


def _status(line: str) -> int:
    try:
        return int(line[2:])
    except ValueError as error:
        raise FactsError(f"expected = STATUS, not {line!r}") from error


def parse(text: str, proxy: Proxy) -> Facts:
    """Turn the output of `node/probe.sh` into facts. Raises FactsError."""
    answers = parse_answers(text)
    words = {tuple(question.split()): answer for question, answer in answers.items()}

    def text_of(*question: str) -> str:
        return words[question].text if question in words else ""

    def each(kind: str) -> Iterator[tuple[str, Answer]]:
        return ((" ".join(question[1:]), answer) for question, answer in words.items() if question[0] == kind)

    def all_of(kind: str) -> str:
        return "\n".join(answer.text for _, answer in each(kind) if answer.status == 0)

    instances, keepalived_silence = parse_instances(
        next((answer for _, answer in each("keepalived-state")), None), text_of("keepalived-counters")
    )
    links, guards = parse_network(text_of("network"))
    kernel = {name: answer.text.strip() for name, answer in each("kernel") if answer.status == 0}
    qlen = kernel.get(DGRAM_QLEN, "")
    state = words.get(("proxy-state",))
    clock = text_of("clock").strip()
    alive = state is not None and state.status == 0
    return Facts(
        system=parse_system(text_of("system")) if ("system",) in words else None,
        programs=frozenset(next((a.text for q, a in words.items() if q[0] == "programs"), "").split()),
        packages=parse_packages(next((a.text for q, a in words.items() if q[0] == "packages"), "")),
        units={name: parse_unit(answer.text) for name, answer in each("unit")},
        proxy_version=parse_version(text_of("proxy-version")),
        proxy_services=proxy.services(text_of("proxy-version")),
        keepalived_version=parse_version(text_of("keepalived-version")),
        addresses=parse_addresses(text_of("addresses")),
        sockets=parse_sockets(text_of("listeners")),
        files={**guards, **{path: parse_file(answer.text) for path, answer in each("file")}},
        texts={path: answer.text + "\n" for path, answer in each("read") if answer.status == 0},
        proxy_state=proxy.parse_state(state.text) if state and alive else None,
        proxy_silence=state.text if state and not alive else "",
        unmanaged=tuple(lines_of(text_of("proxy-others"))),
        instances=instances,
        keepalived_silence=keepalived_silence,
        generations=parse_generations(text_of("generation")),
        history=parse_history(text_of("history")) if ("history",) in words else None,
        holder=parse_holder(text_of("lock")),
        firewall=firewall.parse(text_of("firewall")) if ("firewall",) in words else None,
        selinux=selinux.parse(text_of("selinux", proxy.domain.boolean)),
        pings={address: answer.status == 0 for address, answer in each("ping")},
        replies={
            url: parse_connection(answer) if url.startswith("tcp:") else parse_reply(answer)
            for url, answer in each("request")
        },
        settings=Settings(
            units={name: parse_unit_files(name, a.text) for name, a in each("unit-files") if a.status == 0},
            links=links,
            guards=tuple(guards),
            dgram_qlen=int(qlen) if qlen.isdecimal() else None,
        ),
        kernel=kernel,
        trackers=understood(host.parse_trackers, all_of("keepalived-checks")),
        strays=tuple(lines_of(all_of("strays"))),
        complaints=tuple(lines_of(text_of("keepalived-complaints"))),
        neighbours={
            address: understood(host.parse_neighbours, answer.text)
            for address, answer in each("neighbours")
            if answer.status == 0
        },
        arp_answers={
            asked.split(" ")[0]: understood(host.parse_arp_answers, answer.text)
            for asked, answer in each("arp-answers")
            if answer.status == 0
        },
        macs=understood(host.parse_macs, all_of("links")),
        down=host.parse_down(all_of("links")),
        certificates={
            endpoint: found for endpoint, answer in each("certificate") if (found := certificates.parse(answer.text))
        },
        spaces=understood(host.parse_spaces, all_of("space")),
        clock=float(clock) if clock.isdecimal() else None,
    )


def understood(parse: Callable[[str], T], text: str) -> T:
    """Return what a parser makes of an answer. Raises FactsError."""
    try:
        return parse(text)
    except ValueError as error:
        raise FactsError(str(error)) from error


def _assignments(text: str) -> list[tuple[str, str]]:
    """Split `KEY=value` lines; raises FactsError on a line of another form."""
    pairs = []
    for line in lines_of(text):
        key, mark, value = line.partition("=")
        if mark:
            pairs.append((key, value.strip()))
        elif not line.startswith("#"):
            raise FactsError(f"expected KEY=value, not {line!r}")
    return pairs


def parse_instances(answer: Answer | None, earlier: str) -> tuple[tuple[Instance, ...], str]:
    """Return the VRRP instances of the running keepalived, or none and why: it is not understood in every version."""
    if answer is None or answer.status != 0:
        return (), answer.text if answer else ""
    try:
        return dump.parse(answer.text, earlier), ""
    except ValueError as error:
        return (), str(error)


def parse_system(text: str) -> System:
    """Parse os-release and the lines that the probe adds to it."""
    values = {key: value.strip("'\"") for key, value in _assignments(text)}
    try:
        return System(
            name=values.get("PRETTY_NAME") or values.get("ID", "unknown"),
            host=values["HOST"],
            container=values["CONTAINER"] if values["CONTAINER"] not in ("", "none") else None,
            user_id=int(values["USER_ID"]),
            families=(values.get("ID", ""), *values.get("ID_LIKE", "").split()),
            managers=tuple(values["MANAGERS"].split()),
            time=float(values["EPOCH"]),
        )
    except (KeyError, ValueError) as error:
        raise FactsError(f"the description of the system lacks {error}") from error


def parse_packages(text: str) -> dict[str, str]:
    """Parse `NAME VERSION` lines: the packages that are installed."""
    packages = {}
    for line in lines_of(text):
        name, blank, version = line.partition(" ")
        if not blank:
            raise FactsError(f"expected NAME VERSION, not {line!r}")
        packages[name] = version.strip()
    return packages


def parse_unit(text: str) -> Unit:
    """Parse `systemctl show` and the journal lines behind it."""
    pairs = _assignments(text)
    values = dict(pairs)
    return Unit(
        load=values.get("LoadState", "unknown"),
        active=values.get("ActiveState", "unknown"),
        sub=values.get("SubState", "unknown"),
        file_state=values.get("UnitFileState", ""),
        journal=tuple(value for key, value in pairs if key == "Journal"),
        changed=float(values["Changed"]) if values.get("Changed", "").isdigit() else None,
    )


def parse_unit_files(name: str, text: str) -> UnitSettings:
    """Parse the limit that every unit gets, and each file of a unit with its path in front.

    exlb's own file is left out. The last assignment counts, and of a list all of them since the last empty one.
    Source: systemd.unit(5), systemd.exec(5) `BindReadOnlyPaths=SOURCE:DESTINATION`.
    """
    values: dict[str, list[str]] = {}
    ours = False
    for line in map(str.strip, lines_of(text)):
        if path := re.fullmatch(r"# (/\S+)", line):
            ours = path[1] == drop_in_path(name)
        key, mark, value = line.partition("=")
        if mark and not ours and not line.startswith(("#", ";")):
            kept = values.setdefault(key.strip(), [])
            if not value.strip():
                kept.clear()
            kept.extend(value.split())
    limits = (*values.get("DefaultLimitNOFILE", ()), *values.get("LimitNOFILE", ()))
    return UnitSettings(
        after=frozenset(values.get("After", ())),
        wants=frozenset((*values.get("Wants", ()), *values.get("Requires", ()))),
        restart=(values.get("Restart") or ["no"])[-1],
        file_limit=_limit(limits[-1]) if limits else None,
        bound=frozenset(
            path.split(":")[1]
            for name in ("BindPaths", "BindReadOnlyPaths")
            for path in values.get(name, ())
            if ":" in path
        ),
    )


def _limit(text: str) -> int:
    """Return the hard limit of `LIMIT` or `SOFT:HARD`; a size may end in K, M or G. Source: systemd.exec(5)."""
    hard = text.rpartition(":")[2]
    number, unit = hard.rstrip("KMG"), hard[-1:]
    if hard == "infinity":
        return UNLIMITED
    try:
        return int(number) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(unit, 1)
    except ValueError as error:
        raise FactsError(f"LimitNOFILE={text} is not understood") from error


def parse_network(text: str) -> tuple[tuple[Link, ...], dict[str, FileFact]]:
    """Parse `networkd INTERFACE FILE KEEPS` and `NetworkManager INTERFACE`, and `file PATH FACT` of exlb's guards."""
    managers: dict[str, Manager] = {"networkd": "networkd", "NetworkManager": "NetworkManager"}
    links: list[Link] = []
    guards = {}
    for line in lines_of(text):
        match line.split(" "):
            case [manager, interface, *rest] if manager in managers and len(rest) <= 2:
                links.append(Link(interface, managers[manager], *rest))
            case ["file", path, *fact] if fact:
                guards[path] = parse_file(" ".join(fact))
            case _:
                raise FactsError(f"what manages the network is not understood: {line!r}")
    return tuple(links), guards


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Parse `ip -o addr show`, one line per address."""
    addresses = []
    for line in lines_of(text):
        words = line.split()
        try:
            interface, family, value = words[1], words[2], words[3]
            if family in ("inet", "inet6"):
                addresses.append(Address(interface, ip_interface(value)))
        except (IndexError, ValueError) as error:
            raise FactsError(f"`ip -o addr show` said {line!r}") from error
    return tuple(addresses)


def parse_sockets(text: str) -> tuple[Socket, ...]:
    """Parse `ss -Hltnp`, one line per listening socket."""
    sockets = []
    for line in lines_of(text):
        words = line.split()
        try:
            host, _, port = words[3].rpartition(":")
            host = host.partition("%")[0].strip("[]")
            process = re.search(r'users:\(\("([^"]*)"', line)
            # `*` takes both families; what ss shows as [::] takes IPv6 alone.
            address = None if host == "*" else str(ip_address(host))
            sockets.append(Socket(address, int(port), process[1] if process else None))
        except (IndexError, ValueError) as error:
            raise FactsError(f"`ss -Hltnp` said {line!r}") from error
    return tuple(sockets)


def parse_file(text: str) -> FileFact:
    """Parse `absent` or `MODE OWNER:GROUP SHA256 CHANGED KIND`, `-` for what only a regular file has."""
    if text == "absent":
        return FileFact("absent")
    try:
        mode, owner, digest, changed, kind = text.split(" ", 4)
        if digest == "-":
            return FileFact(kind, int(mode, 8), owner)
        return FileFact(kind, int(mode, 8), owner, digest, float(changed))
    except ValueError as error:
        raise FactsError(f"expected MODE OWNER SHA256 CHANGED KIND, not {text!r}") from error


def parse_generations(text: str) -> Generations:
    """Parse what probe.sh says of the generations, `NAME VALUE...` per line."""
    values: dict[str, list[str]] = {}
    for line in lines_of(text):
        name, *words = line.split()
        values.setdefault(name, []).extend(words)
    try:
        unfinished = values.get("intent")
        return Generations(
            current=int(values["number"][0]) if "number" in values else None,
            edited=values.get("edited") == ["yes"],
            kept=tuple(sorted(map(int, values.get("kept", [])))),
            pruned=int(values["pruned"][0]) if "pruned" in values else None,
            unfinished=(int(unfinished[0]), int(unfinished[1])) if unfinished else None,
            changing="changing" in values,
        )
    except (ValueError, IndexError) as error:
        raise FactsError(f"the generations of the node are not understood: {text!r}") from error


def parse_history(text: str) -> History:
    """Parse `generation NUMBER`, the lines `meta NAME=VALUE` and `file MANIFEST-LINE` of each, and `journal LINE`."""
    kept: list[Kept] = []
    journal = []
    for line in lines_of(text):
        word, _, rest = line.partition(" ")
        try:
            match word:
                case "generation":
                    kept.append(Kept(int(rest), {}, ()))
                case "meta":
                    name, _, value = rest.partition("=")
                    kept[-1] = replace(kept[-1], meta={**kept[-1].meta, name: value})
                case "file":
                    kept[-1] = replace(kept[-1], files=(*kept[-1].files, _kept_file(rest)))
                case "journal":
                    journal.append(rest)
                case _:
                    raise ValueError(word)
        except (ValueError, IndexError) as error:
            raise FactsError(f"the history of the node is not understood: {line!r}") from error
    return History(tuple(sorted(kept, key=lambda each: each.number)), tuple(journal))


def _kept_file(text: str) -> KeptFile:
    number, kind, mode, owner, sha256, path = text.split(" ", 5)
    if mode == "absent":
        return KeptFile(number, kind, path, 0, "", None)
    return KeptFile(number, kind, path, int(mode, 8), owner, sha256)


def parse_holder(text: str) -> Holder | None:
    """Parse `free`, or the lines NAME=VALUE that a session leaves beside its lock."""
    if text.strip() in ("", "free"):
        return None
    values = dict(_assignments(text))
    unknown = "unknown"
    return Holder(*(values.get(name) or unknown for name in ("who", "from", "since", "what")))


def parse_connection(answer: Answer) -> Reply:
    """Parse socat's words, `DATE socat[PID] E WHAT: WHY`: there are none where somebody took the connection."""
    if answer.status == 0:
        return Reply(None, "", accepted=True)
    said = (lines_of(answer.text) or [f"socat ended with status {answer.status}"])[-1]
    return Reply(None, re.sub(r"^.* socat\[\d+\] \w ", "", said), accepted=False)


def parse_reply(answer: Answer) -> Reply:
    """Parse curl's `HTTP-STATUS CONNECTIONS-MADE`; where it failed, its own words stand before or behind them.

    A last line `body BEGINNING` is what came; nodes of before did not tell it.
    """
    lines = lines_of(answer.text) or [""]
    body = lines.pop()[len(_BODY) :] if lines[-1].startswith(_BODY) else None
    lines = lines or [""]
    found = next((match for line in lines if (match := re.fullmatch(r"([0-9]{3}) ([0-9]+)", line.strip()))), None)
    failed = answer.status != 0 or any(line.startswith("curl:") for line in lines)
    if found and int(found[1]) and not failed:
        return Reply(int(found[1]), "", accepted=True, body=body)
    accepted = found is not None and found[2] != "0"
    complaint = next((line for line in lines if line.startswith("curl:")), lines[0])
    # Without its number and the milliseconds, the same cause reads the same on every node.
    error = re.sub(r"^curl: \(\d+\) | after \d+ ms", "", complaint) or f"curl ended with status {answer.status}"
    return Reply(None, error, accepted, late=accepted and complaint.startswith(_TIMED_OUT))
