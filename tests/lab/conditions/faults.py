"""The ways in which conditions come about: shell on nodes, hand edits, the lab's own switches, strangers."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from exlb_fab.lab import machines, standins
from exlb_fab.lab.identity import self_signed
from exlb_fab.lab.layout import LAB_BRIDGE, VIP, lab_layout
from exlb_fab.lab.network import has_own_namespace
from tests.lab.bastion import KEEPALIVED_PATH, PROXY_PATH, Bastion, listens
from tests.lab.conditions.base import ADDRESSES, HOLDER, SECOND, THIRD, Fault

STRANGER = Path(__file__).parent.parent / "stranger.py"
STRANGER_ADDRESS = "198.51.100.66"
STRANGER_MAC = "02:00:00:00:66:66"
STRANGER_INTERFACE = "eth0"
ADVERT = ("advert", STRANGER_ADDRESS, "68", "200")  # with the lab's VRID, and better than any node's
RARE_ADVERT = ("rare-advert", *ADVERT[1:])
WORSE_ADVERT = (*RARE_ADVERT[:3], "50")
SERVERS = tuple(f"kube-master/{each}" for each in ADDRESSES)
APISERVER_CLOSED = """
table inet condition {
    chain input {
        type filter hook input priority filter; policy accept;
        iifname lo accept
        tcp dport 6443 drop
    }
}
"""
_CLOSED = """
table inet condition {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname lo accept
        ct state established,related accept
        icmp type echo-request accept
        tcp dport {{ 22, 6443 }} accept
        {rule}
    }}
}}
"""
_LOST = """
table bridge condition {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ip {end} {{ {addresses} }} ip protocol 112 drop
        ip6 {end} {{ {addresses6} }} ip6 nexthdr 112 drop
    }}
}}
"""


def _there(program: str, package: str) -> str:
    """Return shell that installs a package where its program is not there."""
    return (
        f"command -v {program} >/dev/null || {{ export DEBIAN_FRONTEND=noninteractive; "
        f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {package}; }}"
    )


NFT = _there("nft", "nftables")
ARPING = _there("arping", "iputils-arping")
TCPDUMP = _there("tcpdump", "tcpdump")


@dataclass(frozen=True)
class On:
    """A line of shell on some nodes, one after the other, and one that mends it."""

    nodes: tuple[str, ...]
    do: str
    undo: str

    def __call__(self, bastion: Bastion) -> AbstractContextManager[object]:
        return self._broken(bastion)

    @contextmanager
    def _broken(self, bastion: Bastion) -> Iterator[None]:
        with ExitStack() as ends:
            for node in self.nodes:
                ends.enter_context(bastion.broken(node, self.do, self.undo))
            yield


@dataclass(frozen=True)
class Edited:
    """A hand edit (an expression of sed -E) of a file on some nodes, and how it is loaded.

    That the expression changes nothing is an error.
    """

    path: str
    expression: str
    nodes: tuple[str, ...]
    load: str

    def __call__(self, bastion: Bastion) -> AbstractContextManager[object]:
        kept = f"/root/{Path(self.path).name}"
        change = f"sed -i -E {shlex.quote(self.expression)} {self.path} && ! cmp -s {self.path} {kept}"
        do = f"cp -a {self.path} {kept} && {change} && {self.load}"
        return On(self.nodes, do, f"mv -f {kept} {self.path} && {self.load}")(bastion)


@dataclass(frozen=True)
class Together:
    """Several faults at once; they are mended in the opposite order."""

    faults: tuple[Fault, ...]

    def __call__(self, bastion: Bastion) -> AbstractContextManager[object]:
        ends = ExitStack()
        try:
            for fault in self.faults:
                ends.enter_context(fault(bastion))
        except BaseException:
            ends.close()
            raise
        return ends


def stopped(unit: str, *nodes: str) -> On:
    return On(nodes, f"systemctl stop {unit}", f"systemctl start {unit}")


def hung(unit: str, *nodes: str) -> On:
    """Have all processes of a unit stand still: its ports stay open, and nobody answers."""
    return On(nodes, f"systemctl kill -s STOP {unit}", f"systemctl kill -s CONT {unit}")


def edited_keepalived(expression: str, *nodes: str, load: str = "systemctl reload keepalived") -> Edited:
    return Edited(KEEPALIVED_PATH, expression, nodes, load)


def edited_proxy(expression: str, *nodes: str, load: str = "systemctl reload haproxy") -> Edited:
    return Edited(PROXY_PATH, expression, nodes, load)


def closed_but_for(rule: str = "") -> str:
    """Return rules that let in SSH, the apiserver's clients, pings, and what a rule allows."""
    return _CLOSED.format(rule=rule)


def rules(text: str, *nodes: str) -> On:
    """Load rules of nftables, in a table of their own, which has to be called `inet condition`."""
    return On(nodes, f"{NFT}; nft -f - <<'end'\n{text}\nend", "nft delete table inet condition")


def asked_by_socket(command: str, undo: str, *nodes: str) -> On:
    """Say something to the admin socket of the proxy; lines of several commands are separated by `;`."""

    def say(words: str) -> str:
        return f"printf '%s\\n' {shlex.quote(words)} | socat -T 3 - UNIX-CONNECT:/run/haproxy-admin.sock"

    return On(nodes, say(command), say(undo))


def crowded(port: int, node: str, connections: int) -> On:
    """Have clients on a node hold connections through the VIP to an apiserver, a line every second on each."""
    watch = f"curl -gks -o /dev/null https://{VIP}:{port}/watch"
    return On(
        (node,),
        f"systemd-run -q --collect --unit=crowd sh -c 'for _ in $(seq {connections}); do {watch} & done; wait' && "
        f"timeout 10 sh -c 'until [ $(ss -Htn dst {VIP} | wc -l) -ge {connections} ]; do sleep 0.1; done'",
        "systemctl stop crowd",
    )


def drained(node: str) -> On:
    """Have the proxy of a node give nothing to any apiserver."""
    commands = ["; ".join(f"set server {each} state {state}" for each in SERVERS) for state in ("drain", "ready")]
    return asked_by_socket(*commands, node)


@contextmanager
def failed_over(bastion: Bastion) -> Iterator[None]:
    """Have another node take the VIP over, and keep it where nobody preempts; of two, the first one does."""
    bastion.inside(HOLDER, "systemctl", "restart", "keepalived")
    bastion.wait_until(lambda: bastion.holders() in ([SECOND], [THIRD]))
    yield


def apiservers(mode: str, *nodes: str) -> Fault:
    """Have the apiservers of nodes answer in a mode of the stand-in."""

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        try:
            for node in nodes:
                bastion.lab.apiserver(node, mode)
            yield
        finally:
            for node in nodes:
                bastion.lab.apiserver(node, "ok")

    return fault


def shown_certificate(node: str, *names: str, begin_days: int = -1) -> Fault:
    """Have an apiserver show a certificate for some names more than its own, valid for 366 days from a day on."""

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        place = lab_layout(bastion.lab.name).node(bastion.lab.node(node))
        files = (place.apiserver_certificate, place.apiserver_key)
        kept = [path.read_bytes() for path in files]

        def show(pair: tuple[bytes, ...]) -> None:
            standins.stop(place)
            for path, content in zip(files, pair, strict=True):
                path.write_bytes(content)
            # Not by the lab, which would wait until it is valid.
            standins.start(place, machines.require_leader(place))

        try:
            show(self_signed((place.node.name, place.node.address, *names), begin_days=begin_days))
            yield
        finally:
            show(tuple(kept))

    return fault


def backends(port: int, *nodes: str) -> Fault:
    """Have backend stand-ins at a port of nodes."""

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        try:
            for node in nodes:
                bastion.lab.backend(node, port)
            yield
        finally:
            for node in nodes:
                bastion.lab.end_backend(node, port)

    return fault


def no_backends(port: int, *nodes: str) -> Fault:
    """End the backend stand-ins at a port of nodes, where there are some."""

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        try:
            for node in nodes:
                bastion.lab.end_backend(node, port)
            yield
        finally:
            for node in nodes:
                bastion.lab.backend(node, port)

    return fault


def name_of(address: str, name: str, *nodes: str, load: str = "true") -> On:
    """Have nodes know an address by a name."""
    return On(nodes, f"echo '{address} {name}' >>/etc/hosts && {load}", f"sed -i '/ {name}$/d' /etc/hosts && {load}")


def no_name_of(address: str, name: str, *nodes: str, load: str) -> On:
    """Have nodes that know an address by a name forget it."""
    named = name_of(address, name, *nodes, load=load)
    return On(nodes, named.undo, named.do)


def silent_backends(port: int, *nodes: str) -> On:
    """Have something at a port of nodes that takes every connection and says nothing."""
    return On(
        nodes,
        f"systemd-run -q --collect --unit=silent socat -u TCP4-LISTEN:{port},reuseaddr,fork OPEN:/dev/null && "
        f"{listens(port)}",
        "systemctl stop silent",
    )


def powered_off(node: str) -> Fault:
    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        bastion.lab.poweroff(node)
        try:
            yield
        finally:
            bastion.lab.boot(node)

    return fault


def power_cut(node: str) -> Fault:
    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        bastion.lab.cut(node)
        try:
            yield
        finally:
            bastion.lab.boot(node)

    return fault


def cut_off(node: str) -> Fault:
    """Have nothing reach a node, its carrier staying up."""

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        bastion.lab.partition(node)
        try:
            yield
        finally:
            bastion.lab.heal(node)

    return fault


def told_by_exlb(do: tuple[str, ...], undo: tuple[str, ...]) -> Fault:
    """Have exlb itself do something, and undo it."""

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        bastion.exlb(*do)
        try:
            yield
        finally:
            bastion.exlb(*undo)

    return fault


def on_bastion(do: str, undo: str) -> Fault:
    """Run a line of shell in the bastion's network, and one that mends it; `br` is its interface."""

    def run(bastion: Bastion, line: str) -> None:
        done = bastion.lab.run(["sh", "-c", f"br={LAB_BRIDGE}; {line}"], capture=True)
        assert done.returncode == 0, (line, done.stderr)

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        run(bastion, do)
        try:
            yield
        finally:
            run(bastion, undo)

    return fault


def lost_adverts(*nodes: str) -> Fault:
    """Have the adverts of some nodes get lost on their way."""
    return _lost("saddr", nodes)


def unheard_adverts(*nodes: str) -> Fault:
    """Have the adverts to some nodes get lost on their way."""
    return _lost("daddr", nodes)


def _lost(end: str, nodes: tuple[str, ...]) -> Fault:
    """Have the bastion's bridge forward no adverts that have some nodes at one end."""

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        machines = [bastion.lab.node(node) for node in nodes]
        text = _LOST.format(
            end=end,
            addresses=", ".join(each.address for each in machines),
            addresses6=", ".join(each.address6 for each in machines),
        )
        load = f"nft -f - <<'end'\n{text}\nend"
        with on_bastion(load, "nft delete table bridge condition")(bastion):
            yield

    return fault


def stranger(*does: str, line: str = "true") -> Fault:
    """Plug another host into the nodes' network, run a line of shell there, and have it do what stranger.py can."""

    @contextmanager
    def fault(bastion: Bastion) -> Iterator[None]:
        lab = bastion.lab
        with ExitStack() as ends:
            # It keeps the host's network alive, and the cable goes with it.
            keeper = lab.popen(["unshare", "--net", "sleep", "infinity"])
            ends.callback(_ended, keeper)
            bastion.wait_until(lambda: has_own_namespace(lab_layout(lab.name), keeper.pid))
            cable = ["ip", "link", "add", "stranger", "type", "veth", "peer", "name", STRANGER_INTERFACE]
            _run(lab.argv([*cable, "address", STRANGER_MAC, "netns", str(keeper.pid)]))
            _run(lab.argv(["ip", "link", "set", "stranger", "master", LAB_BRIDGE, "up"]))
            there = ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", "--"]
            set_up = (
                f"ip link set lo up; ip link set {STRANGER_INTERFACE} up; "
                f"ip addr add {STRANGER_ADDRESS}/24 dev {STRANGER_INTERFACE}; {line}"
            )
            _run([*there, "sh", "-e", "-c", set_up])
            if does:
                ends.callback(_ended, subprocess.Popen([*there, sys.executable, str(STRANGER), *does]))
            yield

    return fault


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (words, done.stderr)


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=30)
