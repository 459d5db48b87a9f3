"""What nodes print -> facts: recorded output of every release, and garbage.

tests/golden/recorded has what the probe printed on real nodes of every release of the lab: fresh, deployed, and with
both units stopped. el9-like is dnf on a Debian root file system. No node of Red Hat's family itself was at hand: the
os-release of Rocky 9 is quoted from a public issue thread, what else stands here of that family is written from memory
and not verified.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exlb_fab import departure, firewall
from exlb_fab.answers import (
    END_MARK,
    Answer,
    parse,
    parse_addresses,
    parse_answers,
    parse_connection,
    parse_file,
    parse_generations,
    parse_history,
    parse_holder,
    parse_packages,
    parse_reply,
    parse_sockets,
    parse_system,
    parse_unit,
)
from exlb_fab.cluster import Vip
from exlb_fab.errors import FactsError
from exlb_fab.facts import Address, Facts, FileFact, Generations, Holder, KeptFile, Reply, Socket, Survey, Unit
from exlb_fab.firewall import Firewall
from exlb_fab.platforms import features, parse_version
from exlb_fab.proxies import PROXIES
from exlb_fab.proxies.haproxy import parse_state
from exlb_fab.questions import configuration_questions, node_url, service_questions, vip_url
from exlb_fab.rendering import Target, Templates, render
from exlb_fab.selinux import Selinux
from exlb_fab.system import Link, UnitSettings, drop_in_path
from tests.fake import ONLINE, PROXYING, VRRP, cluster

RECORDED = Path(__file__).parents[1] / "golden" / "recorded"
PROXY = PROXIES["haproxy"]
RELEASES = ("bullseye", "bookworm", "trixie", "el9-like")
DEV_LOG = frozenset({"/var/lib/haproxy/dev/log"})
STATES = ("fresh", "deployed", "stopped")
VIP_URL = "https://198.51.100.100:8443/readyz"
OWN_URL = "https://198.51.100.11:8443/readyz"
CLOSED_URL = "https://198.51.100.11:1/readyz"
GUARD = "/etc/systemd/network/10-lab.network.d/exlb.conf"


def recorded(name: str) -> Facts:
    return parse((RECORDED / f"{name}.txt").read_bytes().decode(), PROXY)


# Recorded on real nodes


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("release", RELEASES)
def test_recordings_answer_all_that_a_node_is_asked(release: str, state: str) -> None:
    one = cluster(1)
    of = replace(one, nodes=(replace(one.nodes[0], interface="host0"),))
    asked = {*configuration_questions(of), *service_questions(of, of.nodes[0]), *departure.questions()}
    assert asked <= parse_answers((RECORDED / f"{release}-{state}.txt").read_text()).keys()


@pytest.mark.parametrize(
    ("release", "name", "manager", "proxy", "keepalived", "packages"),
    [
        (
            *("bullseye", "Debian GNU/Linux 11 (bullseye)", "apt-get", "2.2.9", "2.1.5"),
            ("2.2.9-2+deb11u7", "1:2.1.5-0.2+deb11u1"),
        ),
        (
            *("bookworm", "Debian GNU/Linux 12 (bookworm)", "apt-get", "2.6.12", "2.2.7"),
            ("2.6.12-1+deb12u4", "1:2.2.7-1+b2"),
        ),
        (
            *("trixie", "Debian GNU/Linux 13 (trixie)", "apt-get", "3.0.11", "2.3.3"),
            ("3.0.11-1+deb13u5", "1:2.3.3-1"),
        ),
        (
            *("el9-like", "EL9-like lab node (dnf on a Debian root file system)", "dnf", "2.6.12", "2.2.7"),
            ("2.6.12-2.el9", "2.2.7-2.el9"),
        ),
    ],
    ids=RELEASES,
)
def test_deployed_node_of_every_release_is_understood(
    release: str, name: str, manager: str, proxy: str, keepalived: str, packages: tuple[str, str]
) -> None:
    found = recorded(f"{release}-deployed")
    assert found.system is not None
    assert (found.system.name, found.system.host, found.system.container) == (name, "lb1", "systemd-nspawn")
    assert (found.system.user_id, found.system.managers) == (0, (manager,))
    assert found.system.platform is not None
    assert found.system.platform.manager == manager
    assert found.lacks(PROXY) == ()
    assert (str(found.proxy_version), str(found.keepalived_version)) == (proxy, keepalived)
    assert found.packages == {"haproxy": packages[0], "keepalived": packages[1]}
    assert all(found.units[unit].running and found.units[unit].enabled for unit in ("haproxy", "keepalived"))
    assert found.holds(IPv4Address("198.51.100.100"))
    assert found.holds(IPv4Address("198.51.100.11"))
    assert {(each.address, each.port) for each in found.sockets if each.process == "haproxy"} == {
        ("0.0.0.0", 8443), ("127.0.0.1", 10080),
    }  # fmt: skip
    assert found.files["/etc/haproxy/haproxy.cfg"].mode == 0o644
    assert found.proxy_state is not None
    assert re.fullmatch("[0-9a-f]{16}", found.proxy_state.digest or "")
    assert [(each.name, each.up, each.judged) for each in found.proxy_state.servers] == [("198.51.100.11", True, True)]
    assert found.pings == {"198.51.100.100": True, "198.51.100.77": False}
    assert found.replies[VIP_URL] == found.replies[OWN_URL] == Reply(200, "", accepted=True, body="ok")


@pytest.mark.parametrize(
    ("release", "complaint"),
    [
        ("bullseye", "Connection refused"),
        ("bookworm", "Couldn't connect to server"),
        ("trixie", "Could not connect to server"),
        ("el9-like", "Couldn't connect to server"),
    ],
    ids=RELEASES,
)
def test_stopped_node_of_every_release_is_understood(release: str, complaint: str) -> None:
    found = recorded(f"{release}-stopped")
    unit = found.units["haproxy"]
    assert (unit.running, unit.enabled, unit.active, unit.sub) == (False, True, "inactive", "dead")
    assert unit.journal[-1].endswith("All workers exited. Exiting... (0)")
    assert "Stopped Keepalived v" in found.units["keepalived"].journal[-1]
    assert found.proxy_state is None
    assert "Connection refused" in found.proxy_silence
    own = f"Failed to connect to 198.51.100.11 port 8443: {complaint}"
    assert found.replies[OWN_URL] == Reply(None, own, accepted=False)
    assert not found.holds(IPv4Address("198.51.100.100"))
    assert "haproxy" not in {each.process for each in found.sockets}


@pytest.mark.parametrize("release", RELEASES)
def test_fresh_node_of_every_release_is_understood(release: str) -> None:
    found = recorded(f"{release}-fresh")
    assert found.lacks(PROXY) == ("haproxy", "keepalived", "killall", "curl", "socat")
    assert (found.packages, found.proxy_version, found.keepalived_version) == ({}, None, None)
    assert found.proxy_services == frozenset()
    assert {(unit.load, unit.running, unit.enabled) for unit in found.units.values()} == {("not-found", False, False)}
    assert found.settings.units == {}
    assert found.files["/etc/haproxy/haproxy.cfg"].absent
    assert found.files["/etc/os-release"] == FileFact("symbolic link", 0o777, "0:0")
    assert found.files["/run"].kind == "directory"
    assert found.generations == Generations()
    assert found.replies[OWN_URL].code is None


@pytest.mark.parametrize(
    ("release", "nbproc"), [("bullseye", True), ("bookworm", False), ("trixie", False), ("el9-like", False)]
)
def test_deployed_node_of_every_release_tells_what_its_files_are_rendered_for(release: str, nbproc: bool) -> None:
    found = recorded(f"{release}-deployed")
    assert found.target(cluster(1)) == Target(
        proxy=found.proxy_version,
        keepalived=found.keepalived_version,
        services=frozenset({"prometheus-exporter"}),
        interface="host0",
        contained=True,
        settings=found.settings,
    )
    assert ("nbproc" in features(PROXY.features, found.proxy_version)) is nbproc
    assert "http-check-send" in features(PROXY.features, found.proxy_version)


@pytest.mark.parametrize(
    ("release", "proxy", "keepalived"),
    [
        *(
            (
                release,
                UnitSettings(ONLINE | {"rsyslog.service"}, ONLINE, "always", 524288, bound),
                UnitSettings(ONLINE, ONLINE, "no", 524288),
            )
            for release, bound in (("bullseye", frozenset()), ("bookworm", DEV_LOG), ("trixie", DEV_LOG))
        ),
        (
            "el9-like",
            UnitSettings(ONLINE, ONLINE, "no", 524288),
            UnitSettings(ONLINE | {"syslog.target"}, ONLINE, "no", 524288),
        ),
    ],
    ids=RELEASES,
)
def test_units_of_every_release_are_read_without_what_exlb_has_added(
    release: str, proxy: UnitSettings, keepalived: UnitSettings
) -> None:
    found = recorded(f"{release}-deployed")
    assert found.settings.units == {"haproxy": proxy, "keepalived": keepalived}
    # exlb's drop-in is there, and says what the unit does not.
    lacking = {name for name, unit in found.settings.units.items() if unit.restart == "no"}
    ours = {name for name in ("haproxy", "keepalived") if not found.files[drop_in_path(name)].absent}
    assert ours == lacking


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("release", RELEASES)
def test_system_of_every_release_is_understood(release: str, state: str) -> None:
    found = recorded(f"{release}-{state}")
    assert found.settings.links == (Link("host0", "networkd", "/etc/systemd/network/10-lab.network", "yes"),)
    assert found.settings.guards == (GUARD,)
    assert found.files[GUARD].absent
    assert found.settings.dgram_qlen == 512
    # Nothing filters what comes in: rules of real firewalls are in test_firewall.py.
    assert found.firewall == Firewall()
    assert found.selinux == Selinux()
    assert found.unmanaged == ()
    assert found.holder is None


@pytest.mark.parametrize(
    ("release", "active"),
    [("bullseye", "active"), ("bookworm", "active"), ("trixie", "active"), ("el9-like", "inactive")],
)
def test_deployed_node_of_every_release_tells_what_it_was_before_exlb(release: str, active: str) -> None:
    found = recorded(f"{release}-deployed")
    assert (found.generations.current, found.generations.kept, found.generations.edited) == (1, (0, 1), False)
    assert found.history is not None
    assert [line.rpartition(": ")[2] for line in found.history.journal] == ["done"]
    # Debian's package starts haproxy, Red Hat's does not.
    units = departure.parse_units(found.texts[departure.FOUND_UNITS])
    assert units == {"haproxy": ("enabled", active), "keepalived": ("enabled", "inactive")}
    before = departure.before(cluster(1).nodes[0], found)
    assert before.units == dict.fromkeys(("haproxy", "keepalived"), ("not-found", "inactive"))
    assert before.packages is not None
    assert before.packages[:5] == ("haproxy", "keepalived", "psmisc", "curl", "socat")
    assert before.found == found.history.kept[0]
    assert not departure.before(cluster(1).nodes[0], recorded(f"{release}-fresh")).touched


@pytest.mark.parametrize("release", RELEASES)
def test_every_address_of_every_release_is_compared_as_an_address(release: str) -> None:
    found = {str(each.address) for each in recorded(f"{release}-deployed").addresses}
    assert {"127.0.0.1/8", "::1/128", "198.51.100.11/24", "198.51.100.100/32"} < found


def test_facts_travel_between_processes() -> None:
    found = recorded("trixie-deployed")
    assert pickle.loads(pickle.dumps(found)) == found


# Red Hat's family, from no node of ours (see above)


ROCKY_9 = """NAME="Rocky Linux"
VERSION="9.1 (Blue Onyx)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.1"
PLATFORM_ID="platform:el9"
PRETTY_NAME="Rocky Linux 9.1 (Blue Onyx)"
ANSI_COLOR="0;32"
CPE_NAME="cpe:/o:rocky:rocky:9::baseos"

REDHAT_SUPPORT_PRODUCT_VERSION="9.1"
"""
RHEL_8 = """NAME="Red Hat Enterprise Linux"
VERSION="8.6 (Ootpa)"
ID="rhel"
ID_LIKE="fedora"
PRETTY_NAME="Red Hat Enterprise Linux 8.6 (Ootpa)"
"""
OWN = "HOST=lb1\nKERNEL=4.18.0\nCONTAINER=none\nUSER_ID=0\nEPOCH=1795227762\nMANAGERS=dnf yum\n"


@pytest.mark.parametrize(
    ("release", "name", "families"),
    [
        (ROCKY_9, "Rocky Linux 9.1 (Blue Onyx)", ("rocky", "rhel", "centos", "fedora")),
        (RHEL_8, "Red Hat Enterprise Linux 8.6 (Ootpa)", ("rhel", "fedora")),
    ],
)
def test_red_hats_are_understood(release: str, name: str, families: tuple[str, ...]) -> None:
    found = parse_system(release + OWN)
    assert (found.name, found.families, found.container) == (name, families, None)
    assert found.platform is not None
    assert found.platform.manager == "dnf"


def test_packages_of_both_families_are_understood() -> None:
    assert parse_packages("haproxy 2.4.22-3.el9\nkeepalived 2.2.8-3.el9\n") == {
        "haproxy": "2.4.22-3.el9", "keepalived": "2.2.8-3.el9",
    }  # fmt: skip
    assert parse_packages("") == {}


# Addresses and sockets


def test_address_is_not_found_in_a_longer_one() -> None:
    found = Facts(addresses=parse_addresses("2: eth0    inet 10.0.0.10/24 brd 10.0.0.255 scope global eth0"))
    assert not found.holds(IPv4Address("10.0.0.1"))
    assert found.holds(IPv4Address("10.0.0.10"))


def test_holders_are_those_whose_addresses_have_the_vip() -> None:
    nodes = cluster(2).nodes
    vip = Facts(addresses=(Address("eth0", ip_interface("198.51.100.100/32")),))
    survey = Survey({nodes[0]: Facts(), nodes[1]: vip}, {})
    assert survey.holders(IPv4Address("198.51.100.100")) == (nodes[1],)


def test_address_of_another_family_is_left_alone() -> None:
    text = "3: tun0    unknown 1.2 scope global\n4: eth1    inet 10.9.0.1 peer 10.9.0.2/32 scope global eth1"
    assert [str(each.address) for each in parse_addresses(text)] == ["10.9.0.1/32"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            'LISTEN 0      4096     0.0.0.0:8443  0.0.0.0:* users:(("haproxy",pid=924,fd=9))',
            Socket("0.0.0.0", 8443, "haproxy"),
        ),
        (
            'LISTEN 0      4096   127.0.0.1:10080 0.0.0.0:* users:(("haproxy",pid=1,fd=8))',
            Socket("127.0.0.1", 10080, "haproxy"),
        ),
        ("LISTEN 0      1024     0.0.0.0:6443  0.0.0.0:*      ", Socket("0.0.0.0", 6443, None)),
        (
            'LISTEN 0      511            *:80          *:* users:(("nginx",pid=2,fd=6),("nginx",pid=1,fd=6))',
            Socket(None, 80, "nginx"),
        ),
        ('LISTEN 0      128         [::]:22       [::]:* users:(("sshd",pid=36,fd=4))', Socket("::", 22, "sshd")),
        ("LISTEN 0      128      [::1]:631       [::]:*", Socket("::1", 631, None)),
        ("LISTEN 0 4096 127.0.0.53%lo:53 0.0.0.0:*", Socket("127.0.0.53", 53, None)),
        ("LISTEN 0 4096 [fe80::1]%eth0:8443 [::]:*", Socket("fe80::1", 8443, None)),
        ('LISTEN 0 1 *:1 *:* users:(("odd (name)",pid=3,fd=1))', Socket(None, 1, "odd (name)")),
    ],
)
def test_sockets_are_understood_in_every_form_that_ss_prints(line: str, expected: Socket) -> None:
    assert parse_sockets(line) == (expected,)


@pytest.mark.parametrize(
    ("socket", "address", "port", "expected"),
    [
        (Socket(None, 80, None), "10.0.0.1", 80, True),
        (Socket(None, 80, None), "2001:db8::1", 80, True),
        (Socket(None, 80, None), "::", 80, True),
        (Socket(None, 80, None), "10.0.0.1", 81, False),
        (Socket("10.0.0.1", 80, None), "10.0.0.1", 80, True),
        (Socket("10.0.0.1", 80, None), "10.0.0.10", 80, False),
        (Socket("10.0.0.1", 80, None), "0.0.0.0", 80, True),
        (Socket("10.0.0.1", 80, None), "::", 80, False),
        (Socket("0.0.0.0", 80, None), "10.0.0.1", 80, True),
        (Socket("0.0.0.0", 80, None), "2001:db8::1", 80, False),
        (Socket("0.0.0.0", 80, None), "::", 80, False),
        (Socket("::", 80, None), "2001:db8::1", 80, True),
        (Socket("::", 80, None), "10.0.0.1", 80, False),
        (Socket("::", 80, None), "0.0.0.0", 80, False),
        (Socket("2001:db8::1", 80, None), "2001:db8:0::1", 80, True),
        (Socket("2001:db8::1", 80, None), "::", 80, True),
        (Socket("2001:db8::1", 80, None), "::", 81, False),
    ],
)
def test_socket_takes_its_own_address_and_port_and_those_of_its_family_where_it_has_all(
    socket: Socket, address: str, port: int, expected: bool
) -> None:
    assert socket.covers(ip_address(address), port) is expected


@pytest.mark.parametrize(
    ("address", "local"),
    [(None, False), ("0.0.0.0", False), ("::", False), ("127.0.0.1", True), ("127.0.0.53", True), ("::1", True)],
)
def test_only_a_socket_on_the_loopback_is_for_the_node_alone(address: str | None, local: bool) -> None:
    assert Socket(address, 80, None).local is local


# What the files of a node are rendered for


@pytest.mark.parametrize(
    ("addresses", "interface"),
    [
        (["lo 127.0.0.1/8", "eth0 198.51.100.11/24"], "eth0"),
        (["eth0 198.51.100.11/24", "eth0 198.51.100.12/25"], "eth0"),
        (["eth0 203.0.113.7/24", "bond0 198.51.100.11/24"], "bond0"),
        (["eth0 198.51.100.11/24", "eth1 198.51.100.12/24"], None),
        (["eth0 203.0.113.7/24"], None),
        (["eth0 198.51.100.100/24"], None),
        (["eth0 198.51.100.11/24", "eth1 198.51.100.100/32"], "eth0"),
        (["lo 198.51.100.11/24"], None),
        (["eth0 2001:db8::11/32"], None),
        ([], None),
    ],
    ids=[
        "one",
        "two networks on one",
        "another beside it",
        "two interfaces",
        "another network",
        "the VIP itself",
        "the VIP on another one",
        "the loopback",
        "the other family",
        "none",
    ],
)
def test_interface_of_a_vip_is_the_only_one_with_a_network_that_contains_it(
    addresses: list[str], interface: str | None
) -> None:
    pairs = [each.split() for each in addresses]
    found = Facts(addresses=tuple(Address(name, ip_interface(address)) for name, address in pairs))
    assert found.interface_of(Vip(ip_address("198.51.100.100"), None)) == interface


def test_no_vip_tells_the_interface_of_another_one() -> None:
    vips = [Vip(ip_address(f"198.51.100.{last}"), 24) for last in (100, 101)]
    held = Facts(addresses=(Address("eth1", ip_interface("198.51.100.101/24")),))
    assert held.interface_of(*vips) is None


def test_interface_of_an_ipv6_vip_is_found_alike() -> None:
    found = Facts(addresses=parse_addresses("2: eth0 inet6 fe80::1/64\n3: eth1 inet6 2001:db8::11/64"))
    assert found.interface_of(Vip(ip_address("2001:db8::100"), 64)) == "eth1"


@pytest.mark.parametrize(("container", "contained"), [("none", False), ("", False), ("lxc", True)])
def test_files_are_rendered_for_the_programs_the_interface_and_the_place_of_a_node(
    container: str, contained: bool
) -> None:
    found = Facts(
        system=parse_system(f"ID=debian\nHOST=a\nCONTAINER={container}\nUSER_ID=0\nEPOCH=1\nMANAGERS=apt-get"),
        proxy_version=parse_version("2.6.12"),
        proxy_services=frozenset({"prometheus-exporter"}),
        keepalived_version=parse_version("2.2.7"),
        addresses=parse_addresses("2: bond0 inet 198.51.100.11/24"),
    )
    assert found.target(cluster()) == Target(
        parse_version("2.6.12"), parse_version("2.2.7"), frozenset({"prometheus-exporter"}), "bond0", contained
    )
    assert Facts().target(cluster()) == Target()


def test_paths_of_everything_that_may_be_rendered_are_asked_for() -> None:
    of = cluster(vrrp=replace(VRRP, track=("port", "apiserver")))
    asked = [each.removeprefix("file ") for each in configuration_questions(of) if each.startswith("file ")]
    found = render(of, of.nodes[0], Templates(), Target())
    assert sorted(asked) == sorted(file.path for file in (*found.files, *found.absent))
    assert len(asked) == 7


def test_urls_have_an_ipv6_address_in_brackets_and_lead_to_what_the_proxy_binds() -> None:
    of = cluster(vip=Vip(ip_address("2001:db8::100"), None))
    assert vip_url(of) == "https://[2001:db8::100]:8443/readyz"
    assert node_url(of, replace(of.nodes[0], address=ip_address("2001:db8::1"))) == "https://[2001:db8::1]:8443/readyz"
    bound = replace(of, proxying=replace(PROXYING, bind="vip"))
    assert node_url(bound, of.nodes[0]) == "https://127.0.0.1:8443/readyz"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("HAProxy version 2.6.12\n\nAvailable services : prometheus-exporter\nAvailable filters :", 1),
        ("Available services: one two\n", 2),
        ("Available services : none\n", 1),
        ("HAProxy version 2.6.12\nAvailable filters : prometheus-exporter\n", 0),
        ("", 0),
    ],
)
def test_services_of_a_proxy_are_those_that_its_binary_names(said: str, expected: int) -> None:
    answer = "".join(f"| {line}\n" for line in said.splitlines())
    found = parse(f"@ proxy-version\n{answer}= 0\n{END_MARK}\n", PROXY)
    assert len(found.proxy_services) == expected
    assert ("prometheus-exporter" in found.proxy_services) is ("services : prom" in said)


# Units, files, replies


@pytest.mark.parametrize(
    ("active", "file_state", "running", "enabled"),
    [
        ("active", "enabled", True, True),
        ("reloading", "enabled-runtime", True, False),
        ("activating", "disabled", False, False),
        ("failed", "static", False, True),
        ("inactive", "masked", False, False),
        ("deactivating", "", False, False),
    ],
)
def test_unit_runs_and_is_enabled_in_systemds_own_words(
    active: str, file_state: str, running: bool, enabled: bool
) -> None:
    unit = parse_unit(f"LoadState=loaded\nActiveState={active}\nSubState=x\nUnitFileState={file_state}\n")
    assert (unit.running, unit.enabled) == (running, enabled)


def test_journal_is_kept_as_it_was_written() -> None:
    lines = ("[ALERT] unknown keyword 'balanze'", "KEY=value", "a form\x0cfeed", "'quoted'")
    text = "ActiveState=failed\n" + "".join(f"Journal={line}\n" for line in lines)
    assert parse_unit(text).journal == lines


def test_unit_of_which_nothing_is_known_does_not_run() -> None:
    assert parse_unit("") == Unit("unknown", "unknown", "unknown", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("absent", FileFact("absent")),
        (
            "644 0:0 0a1b 1795227762.25 regular file",
            FileFact("regular file", 0o644, "0:0", "0a1b", 1795227762.25),
        ),
        ("4755 1000:100 0a1b 7.0 regular empty file", FileFact("regular empty file", 0o4755, "1000:100", "0a1b", 7)),
        ("777 0:0 - - symbolic link", FileFact("symbolic link", 0o777, "0:0")),
    ],
)
def test_files_are_understood(text: str, expected: FileFact) -> None:
    assert parse_file(text) == expected


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("200 1", 0, Reply(200, "", accepted=True)),
        ("a warning\n401 1", 0, Reply(401, "", accepted=True)),
        ("200 1\nbody ok", 0, Reply(200, "", accepted=True, body="ok")),
        ("404 1\nbody ", 0, Reply(404, "", accepted=True, body="")),
        ("curl: (7) Failed to connect\n000 0\nbody ", 0, Reply(None, "Failed to connect", accepted=False)),
        ("200 1\ncurl: (28) timed out\nbody begins", 0, Reply(None, "timed out", accepted=True, late=True)),
        ("body 200 1", 0, Reply(None, "curl ended with status 0", accepted=False)),
        ("curl: (7) Failed to connect\n000 0", 7, Reply(None, "Failed to connect", accepted=False)),
        ("000 0\ncurl: (7) Failed to connect", 7, Reply(None, "Failed to connect", accepted=False)),
        ("curl: (35) TLS connect error\n000 1", 35, Reply(None, "TLS connect error", accepted=True)),
        ("000 1\ncurl: (52) Empty reply", 52, Reply(None, "Empty reply", accepted=True)),
        ("curl: (28) Connection timed out\n000 0", 28, Reply(None, "Connection timed out", accepted=False)),
        ("curl: (28) Operation timed out\n000 1", 28, Reply(None, "Operation timed out", accepted=True, late=True)),
        ("sh: 1: curl: not found", 127, Reply(None, "sh: 1: curl: not found", accepted=False)),
        ("", 1, Reply(None, "curl ended with status 1", accepted=False)),
        ("000 0", 0, Reply(None, "000 0", accepted=False)),
    ],
)
def test_replies_tell_a_status_from_a_reason(text: str, status: int, expected: Reply) -> None:
    assert parse_reply(Answer(text, status)) == expected


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("", 0, Reply(None, "", accepted=True)),
        (
            "2026/11/21 15:49:28 socat[1616] E connect(6, AF=2 127.0.0.1:9, 16): Connection refused",
            1,
            Reply(None, "connect(6, AF=2 127.0.0.1:9, 16): Connection refused", accepted=False),
        ),
        ("", 124, Reply(None, "socat ended with status 124", accepted=False)),
        ("timeout: socat: No such file", 127, Reply(None, "timeout: socat: No such file", accepted=False)),
    ],
)
def test_connection_is_taken_or_it_is_said_why_not(text: str, status: int, expected: Reply) -> None:
    assert parse_connection(Answer(text, status)) == expected


@pytest.mark.parametrize(
    "question",
    ["neighbours 198.51.100.100", "arp-answers 198.51.100.100 -", "links", "space /etc", "keepalived-checks /x"],
)
def test_answer_of_a_system_that_is_not_understood_is_refused_and_one_that_failed_left_out(question: str) -> None:
    with pytest.raises(FactsError, match="nonsense"):
        parse(framed((question, "nonsense", 0)), PROXIES["haproxy"])
    assert parse(framed((question, "nonsense", 1)), PROXIES["haproxy"]) == parse(framed(), PROXIES["haproxy"])


# Generations, the history and the lock


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Generations()),
        ("number 0000\nedited no\nkept 0000\n", Generations(0, kept=(0,))),
        (
            "number 0012\nedited yes\nkept 0000\nkept 0012\nkept 0009\npruned 0008\n",
            Generations(12, edited=True, kept=(0, 9, 12), pruned=8),
        ),
        (
            "number 0001\nedited yes\nkept 0000\nkept 0001\nintent 0002 0001\n",
            Generations(1, edited=True, kept=(0, 1), unfinished=(2, 1)),
        ),
        ("changing MainPID=4711\n", Generations(changing=True)),
        ("number 10000\nedited no\nkept 10000\n", Generations(10000, kept=(10000,))),
    ],
    ids=["never pushed to", "only adopted", "edited and pruned", "interrupted", "running", "many"],
)
def test_generations_are_understood(text: str, expected: Generations) -> None:
    assert parse_generations(text) == expected


@pytest.mark.parametrize(
    ("found", "newest", "settled"),
    [
        (Generations(), 0, True),
        (Generations(3, kept=(0, 2, 3)), 3, True),
        (Generations(1, kept=(0, 1, 7)), 7, True),
        (Generations(3, kept=(0, 3), unfinished=(4, 3)), 4, False),
        (Generations(3, kept=(0, 3), changing=True), 3, False),
    ],
    ids=["none", "the newest is active", "an older one is active", "interrupted", "running"],
)
def test_newest_generation_counts_also_one_that_was_left_or_has_not_ended(
    found: Generations, newest: int, settled: bool
) -> None:
    assert (found.newest, found.settled) == (newest, settled)


HISTORY = """generation 0001
meta when=2027-01-02T03:04:05Z
meta who=ann
meta what=push-config
meta odd=a=b c
file 1 proxy 600 0:0 0a1b /etc/haproxy/haproxy.cfg
file 2 keepalived 644 0:0 2c3d /etc/keepalived/a file.conf
generation 0000
meta what=found on the node
file 1 proxy 640 0:107 ff00 /etc/haproxy/haproxy.cfg
file 2 keepalived absent - - /etc/keepalived/keepalived.conf
journal 2027-01-02T03:04:05Z 0000 -> 0001 ann bastion push-config: done
journal 2027-01-03T03:04:05Z 0001 -> 0002 ann bastion push-config: failed gate-proxy, restored
"""


def test_history_is_understood_oldest_first() -> None:
    found = parse_history(HISTORY)
    assert [each.number for each in found.kept] == [0, 1]
    original, pushed = found.kept
    assert pushed.meta == {"when": "2027-01-02T03:04:05Z", "who": "ann", "what": "push-config", "odd": "a=b c"}
    assert pushed.files == (
        KeptFile("1", "proxy", "/etc/haproxy/haproxy.cfg", 0o600, "0:0", "0a1b"),
        KeptFile("2", "keepalived", "/etc/keepalived/a file.conf", 0o644, "0:0", "2c3d"),
    )
    assert original.files[1] == KeptFile("2", "keepalived", "/etc/keepalived/keepalived.conf", 0, "", None)
    assert [line.rpartition(": ")[2] for line in found.journal] == ["done", "failed gate-proxy, restored"]


def test_history_of_a_node_that_keeps_nothing_is_empty_and_one_that_was_not_asked_is_none() -> None:
    assert parse(framed(("history", "", 0)), PROXY).history == parse_history("")
    assert parse(framed(), PROXY).history is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("free\n", None),
        ("", None),
        (
            "token=aa\nwho=ann\nfrom=bastion\nwhat=push-config\nsince=2027-01-02T03:04:05Z\n",
            Holder("ann", "bastion", "2027-01-02T03:04:05Z", "push-config"),
        ),
        ("token=aa\nwho=ann\n", Holder("ann", "unknown", "unknown", "unknown")),
        ("token=aa\nwho=\nfrom=b\nwhat=c\nsince=d\n", Holder("unknown", "b", "d", "c")),
    ],
    ids=["free", "nothing", "held", "half written", "nobody"],
)
def test_lock_tells_who_holds_it(text: str, expected: Holder | None) -> None:
    assert parse_holder(text) == expected


# What the admin socket says


HEADER = "# pxname,svname,status,type,check_status,check_code,last_chk,addr,\n"


def test_servers_are_read_by_the_names_of_the_columns() -> None:
    text = (
        "Name: HAProxy\ndescription: exlb-00112233aabbccdd\n\n" + HEADER + "kube-master,FRONTEND,OPEN,0,,,,,\n"
        'kube-master,a,UP,2,* L7OK,200,"Layer7, ""quoted""",198.51.100.11:6443,\n'
        "kube-master,b,UP 1/2,2,INI,,,198.51.100.12:6443,\n"
        "kube-master,c,DOWN,2,L7STS,401,Unauthorized,198.51.100.13:6443,\n"
        "kube-master,d,no check,2,,,,198.51.100.14:6443,\n"
        "kube-master,BACKEND,UP,1,,,,,\n\n"
    )
    state = parse_state(text)
    assert state.digest == "00112233aabbccdd"
    assert [(each.name, each.up, each.judged, each.unauthorized) for each in state.servers] == [
        ("a", True, True, False),
        ("b", True, False, False),
        ("c", False, True, True),
        ("d", True, True, False),
    ]
    assert state.servers[0].detail == 'Layer7, "quoted"'


@pytest.mark.parametrize("check", ["INI", "* INI"])
def test_first_check_that_has_not_ended_is_no_judgement(check: str) -> None:
    state = parse_state(f"{HEADER}kube-master,a,UP 1/2,2,{check},,,,\n")
    assert not state.servers[0].judged


@pytest.mark.parametrize("line", ["", "description: somebody else's", "description: exlb-", "x description: exlb-aa"])
def test_configuration_of_somebody_else_has_no_digest(line: str) -> None:
    assert parse_state(f"Name: HAProxy\n{line}\n\n{HEADER}").digest is None


@pytest.mark.parametrize("text", ["", "Name: HAProxy\n", "# pxname,svname\nkube-master,a\n# odd\n"])
def test_socket_that_says_something_else_is_not_understood(text: str) -> None:
    if "svname" in text:
        assert parse_state(text).servers == ()
    else:
        with pytest.raises(FactsError, match="did not answer `show stat`"):
            parse_state(text)


def test_statistics_without_the_columns_that_are_needed_are_not_understood() -> None:
    with pytest.raises(FactsError, match="`show stat` is not understood"):
        parse_state("# pxname,type\nkube-master,2\n")


# The frame around the answers


def framed(*answers: tuple[str, str, int]) -> str:
    """Print answers as probe.sh does."""
    parts = []
    for question, text, status in answers:
        lines = "".join(f"| {line}\n" for line in text.split("\n")) if text else ""
        parts.append(f"@ {question}\n{lines}= {status}\n")
    return "".join(parts) + END_MARK + "\n"


# What `$( )` leaves: no NUL, no newline at the end.
CONTENT = st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(lambda text: text.rstrip("\n"))


@given(CONTENT, CONTENT, st.integers(0, 255))
@example("@ system\n= 0\n| x\nexlb-probe-end", "= 7", 1)
@example("\x0c@ file /b\x0c= 0\x0cexlb-probe-end", "\r= 3", 0)
@example("a\u2028exlb-probe-end\x85@ file /b", "", 0)
def test_content_is_never_taken_for_the_marks_of_the_probe(one: str, other: str, status: int) -> None:
    found = parse_answers(framed(("read /a", one, status), ("read /b", other, 0)))
    assert found == {"read /a": Answer(one, status), "read /b": Answer(other, 0)}


def test_output_that_was_cut_short_names_the_question_that_it_ended_in() -> None:
    whole = framed(("system", "ID=debian", 0), ("addresses", "1: lo    inet 127.0.0.1/8", 0))
    for end in range(len(whole) - 1):
        with pytest.raises(FactsError, match=r"ended early|expected = STATUS, not .= .$"):
            parse_answers(whole[:end])
    with pytest.raises(FactsError, match="'addresses'"):
        parse_answers(whole[: whole.index("| 1:")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("@ system\n= soon\n", "expected = STATUS, not '= soon'"),
        ("= 0\n", "nobody asked"),
        ("@  \n= 0\n", "nobody asked"),
        ("@ ping 1\n= 0\n= 0\n", "nobody asked"),
    ],
)
def test_frame_that_is_not_the_probes_is_not_understood(text: str, words: str) -> None:
    with pytest.raises(FactsError, match=words):
        parse_answers(text + END_MARK)


def test_output_that_was_cut_short_tells_what_the_shell_said_and_nothing_of_a_file() -> None:
    text = "@ read /etc/haproxy/haproxy.cfg\n| stats auth admin:geheim\n| \tauth_pass gehe\nsh: 1: out of memory\n"
    with pytest.raises(FactsError) as caught:
        parse_answers(text)
    assert "gehe" not in caught.value.message
    assert "'read /etc/haproxy/haproxy.cfg'" in caught.value.message
    assert "out of memory" in caught.value.message


def test_profile_that_prints_does_not_matter() -> None:
    assert parse_answers("Welcome!\n" + framed(("ping a", "x", 0))) == {"ping a": Answer("x", 0)}


def test_what_was_not_asked_is_empty() -> None:
    assert parse(framed(), PROXY) == Facts()
    found = parse(framed(("addresses", "2: eth0    inet 198.51.100.11/24 scope global eth0", 0)), PROXY)
    assert replace(found, addresses=()) == Facts()


def test_rules_of_a_firewall_are_found_in_the_answer() -> None:
    text = (Path(__file__).parent / "firewalls" / "nftables.txt").read_text()
    found = parse(framed(("firewall", text.rstrip("\n"), 0)), PROXY).firewall
    assert found == firewall.parse(text)
    assert found != Firewall()


def test_text_of_a_file_is_kept_only_where_it_could_be_read() -> None:
    found = parse(framed(("read /a", "one\n\ntwo", 0), ("read /b", "cat: /b: No such file", 1)), PROXY)
    assert found.texts == {"/a": "one\n\ntwo\n"}


# Garbage


@pytest.mark.parametrize(
    ("parser", "text", "words"),
    [
        (parse_system, "ID=debian\nwhat?\n", "expected KEY=value, not 'what\\?'"),
        (parse_system, "ID=debian\n", "lacks 'HOST'"),
        (parse_system, OWN.replace("USER_ID=0", "USER_ID=root"), "'root'"),
        (parse_packages, "haproxy 2.6.12\nkeepalived\n", "expected NAME VERSION, not 'keepalived'"),
        (parse_unit, "ActiveState=active\nFailed to connect to bus\n", "not 'Failed to connect to bus'"),
        (parse_addresses, "2: eth0    inet 198.51.100.11/24\nnonsense\n", "`ip -o addr show` said 'nonsense'"),
        (parse_addresses, "2: eth0    inet 198.51.100.999/24\n", "198.51.100.999/24"),
        (parse_sockets, "LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\nLISTEN 0\n", "`ss -Hltnp` said 'LISTEN 0'"),
        (parse_sockets, "LISTEN 0 128 0.0.0.0:ssh 0.0.0.0:*", "0.0.0.0:ssh"),
        (parse_file, "644 0:0", "expected MODE OWNER SHA256 CHANGED KIND, not '644 0:0'"),
        (parse_file, "rw- 0:0 - - fifo", "rw-"),
        (parse_file, "644 0:0 0a1b today regular file", "today"),
        (parse_file, "", "not ''"),
        (parse_generations, "number one", "generations of the node are not understood: 'number one'"),
        (parse_generations, "number\nkept 1", "not understood"),
        (parse_generations, "intent 0002", "not understood"),
        (parse_history, "generation 0001\nmeta a=b\nwhat?\n", "history of the node is not understood: 'what\\?'"),
        (parse_history, "meta a=b", "'meta a=b'"),
        (parse_history, "generation 0001\nfile 1 proxy 644 0:0 aa", "'file 1 proxy 644 0:0 aa'"),
        (parse_history, "generation 0001\nfile 1 proxy rw- 0:0 aa /etc/x", "rw-"),
        (parse_holder, "somebody", "expected KEY=value, not 'somebody'"),
    ],
)
def test_line_that_is_not_understood_is_named(parser: Callable[[str], object], text: str, words: str) -> None:
    with pytest.raises(FactsError, match=words):
        parser(text)


PIECES = (
    *("@ ", "| ", "= ", "\n", "\r", "\x00", " ", "=", ",", '"', "0", "²", "9" * 5000, "/a", "1.2.3"),
    *("unit", "file", "read", "ping", "request", "system", "proxy-state", "absent", "ID", "HOST=a"),
    *("# pxname,svname,status,type\n", "a,b,UP,2\n", "description: exlb-aa"),
    *(
        "generation ",
        "number ",
        "kept ",
        "intent ",
        "meta ",
        "file ",
        "journal ",
        "lock",
        "history",
        "who=",
        "absent - -",
    ),
    *("2: eth0 inet 10.0.0.1/24", "644 0:0 - x", "LISTEN 0 1 *:1"),
)
GARBAGE = st.text() | st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join)
PARSERS: tuple[Callable[[str], object], ...] = (
    lambda text: parse(text + "\n" + END_MARK, PROXY),
    lambda text: parse(text, PROXY),
    lambda text: parse_reply(Answer(text, 0)),
    lambda text: parse_connection(Answer(text, 1)),
    parse_answers,
    parse_system,
    parse_packages,
    parse_unit,
    parse_addresses,
    parse_sockets,
    parse_file,
    parse_generations,
    parse_history,
    parse_holder,
    parse_state,
    parse_version,
)


@given(GARBAGE)
@example("@ unit\n= 0")
@example("= 0\n")
@example("@ proxy-state\n| # pxname,svname,status,type,check_status,check_code\n| a,b,UP,2,L7OK,²\n= 0")
@example("# pxname,svname,status,type\n" + '"' + "x" * 200000)
def test_any_text_is_understood_or_refused_as_not_understood(text: str) -> None:
    for parser in PARSERS:
        with contextlib.suppress(FactsError):
            parser(text)
