"""What a node says of its ground, and what is understood of it.

`dmi/` has what the firmware of known machines says as far as that is published: typed, not recorded, and some of it
from memory. exlb was on none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest

from exlb_fab import ground
from exlb_fab.answers import END_MARK
from exlb_fab.errors import FactsError
from exlb_fab.ground import Advert, Available, Contact, Ground, Interface, Owners
from tests.fake import cluster

DMI = Path(__file__).with_name("dmi")
CLOUDS = {
    "amazon-nitro": ("Amazon EC2", "no"),
    "amazon-xen": ("Amazon EC2", "no"),
    "google": ("Google Compute Engine", "no"),
    "azure": ("Microsoft Azure", "no"),
    "alibaba": ("Alibaba Cloud", "no"),
    "tencent": ("Tencent Cloud", "no"),
    "oracle": ("Oracle Cloud", "no"),
    "digitalocean": ("DigitalOcean", "no"),
    "hetzner-cloud": ("Hetzner Cloud", "no"),
    "huawei": ("Huawei Cloud", "perhaps"),
    "open-telekom": ("Open Telekom Cloud", "perhaps"),
    "openstack-nova": ("OpenStack", "perhaps"),
    "openstack-rdo": ("OpenStack", "perhaps"),
}
OWN_MACHINES = ("hyper-v", "hetzner-dedicated", "qemu", "vmware", "dell", "nothing")


def machine(name: str) -> ground.Machine:
    return ground.parse_machine((DMI / f"{name}.txt").read_text())


@pytest.mark.parametrize(("name", "cloud"), CLOUDS.items(), ids=CLOUDS)
def test_a_machine_of_a_cloud_is_known_by_its_firmware(name: str, cloud: tuple[str, str]) -> None:
    found = Ground(machine(name)).provider
    assert found is not None
    assert (found.name, found.carries) == cloud


@pytest.mark.parametrize("name", OWN_MACHINES)
def test_a_machine_of_ones_own_is_taken_for_no_cloud(name: str) -> None:
    assert Ground(machine(name)).provider is None


def test_every_text_of_a_machine_is_judged() -> None:
    assert {path.stem for path in DMI.iterdir()} == {*CLOUDS, *OWN_MACHINES}


LINKS = r"""1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000\    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq_codel state UP mode DEFAULT group default qlen 1000\    link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff\    altname enp1s0
3: eth1: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 9000 qdisc fq_codel state DOWN mode DEFAULT group default qlen 1000\    link/ether 52:54:00:12:34:57 brd ff:ff:ff:ff:ff:ff
4: bond0: <BROADCAST,MULTICAST,MASTER> mtu 1500 qdisc noop state DOWN mode DEFAULT group default qlen 1000\    link/ether 2e:5a:11:f0:55:01 brd ff:ff:ff:ff:ff:ff
12: host0@if7: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UP mode DEFAULT group default qlen 1000\    link/ether 9a:12:6d:fa:ec:e2 brd ff:ff:ff:ff:ff:ff link-netnsid 0
"""  # noqa: E501 - as ip prints it


def test_interfaces_are_up_plugged_in_and_of_a_size() -> None:
    assert ground.parse_interfaces(LINKS) == {
        "lo": Interface(up=True, carrier=True, mtu=65536),
        "eth0": Interface(up=True, carrier=True, mtu=1500),
        "eth1": Interface(up=True, carrier=False, mtu=9000),
        "bond0": Interface(up=False, carrier=True, mtu=1500),
        "host0": Interface(up=True, carrier=True, mtu=1450),
    }


APT = """lists 3
haproxy:
  Installed: (none)
  Candidate: 2.6.12-1+deb12u1
  Version table:
     2.6.12-1+deb12u1 500
        500 http://deb.example/debian bookworm/main amd64 Packages
keepalived:
  Installed: 1:2.2.7-1+b2
  Candidate: 1:2.2.7-1+b2
  Version table:
 *** 1:2.2.7-1+b2 100
        100 /var/lib/dpkg/status
socat:
  Installed: (none)
  Candidate: (none)
  Version table:
"""
DNF = """lists 2
Available Packages
Name         : haproxy
Version      : 2.4.22
Release      : 3.el9
Architecture : x86_64
Size         : 2.2 M
Source       : haproxy-2.4.22-3.el9.src.rpm
Repository   : appstream
Summary      : HAProxy reverse proxy for high availability environments
URL          : http://www.haproxy.org/
License      : GPLv2+
Description  : HAProxy is a TCP/HTTP reverse proxy which is particularly suited for
             : high availability environments. Version : 9.9.9 is not meant.

Name         : haproxy
Version      : 2.4.17
Release      : 1.el9

Installed Packages
Name         : keepalived
Version      : 2.2.8
Release      : 3.el9
"""


def test_versions_are_those_of_apt_which_a_push_would_bring() -> None:
    found = ground.parse_available(APT)
    assert found == Available({"haproxy": "2.6.12-1+deb12u1", "keepalived": "1:2.2.7-1+b2"}, listed=True)


def test_of_several_versions_that_dnf_knows_the_newest_counts() -> None:
    assert ground.parse_available(DNF) == Available({"haproxy": "2.4.22", "keepalived": "2.2.8"}, listed=True)


@pytest.mark.parametrize("text", ["", "lists 0\n"])
def test_node_without_lists_knows_of_no_package(text: str) -> None:
    assert ground.parse_available(text) == Available({}, listed=False)


def test_only_who_has_answered_owns_an_address() -> None:
    text = """198.51.100.100 dev eth0 lladdr 02:00:00:00:00:0c REACHABLE
198.51.100.100 dev eth1 FAILED
198.51.100.100 dev eth2 INCOMPLETE
198.51.100.100 198.51.100.100 dev eth3 lladdr 02:00:00:00:00:0d STALE
198.51.100.100 arping 02:00:00:00:00:0E
2001:db8::100 2001:db8::100 dev eth0 lladdr 02:00:00:00:00:0a router REACHABLE
"""
    macs = {"02:00:00:00:00:0c", "02:00:00:00:00:0e"}
    vip, vip6 = ip_address("198.51.100.100"), ip_address("2001:db8::100")
    other = Owners(frozenset({"02:00:00:00:00:0a"}))
    assert ground.parse_owners(text) == {vip: Owners(frozenset(macs)), vip6: other}
    pinged = Owners(frozenset({*macs, "02:00:00:00:00:0d"}), ping=True)
    assert ground.parse_owners(f"{vip} ping\n{text}") == {vip: pinged, vip6: other}


def test_address_that_nobody_has_is_nobodys() -> None:
    vip = "198.51.100.100"
    assert ground.parse_owners(f"{vip} {vip} dev eth0 FAILED") == {ip_address(vip): Owners()}
    assert ground.parse_owners("") == {}


HEARD = """10:53:30.289929 IP 198.51.100.21 > 224.0.0.18: VRRPv2, Advertisement, vrid 68, prio 120, authtype simple, intvl 1s, length 20
10:53:31.291562 IP 198.51.100.21 > 224.0.0.18: VRRPv2, Advertisement, vrid 68, prio 120, authtype simple, intvl 1s, length 20
10:53:31.400000 IP 198.51.100.12 > 198.51.100.11: VRRPv3, Advertisement, vrid 51, prio 99, intvl 100cs, length 12
10:53:31.500000 IP6 fe80::5054:ff:fe12:3456 > ff02::12: VRRPv3, Advertisement, vrid 7, prio 99, intvl 100cs, length 24
10:53:31.600000 IP6 fe80::1 > ff02::12: ip-proto-112 24
"""  # noqa: E501 - as tcpdump prints it


def test_every_sender_of_adverts_is_heard_once() -> None:
    assert ground.parse_adverts(HEARD) == (
        Advert(ip_address("198.51.100.21"), ip_address("224.0.0.18"), 68),
        Advert(ip_address("198.51.100.12"), ip_address("198.51.100.11"), 51),
        Advert(ip_address("fe80::5054:ff:fe12:3456"), ip_address("ff02::12"), 7),
    )


CONTACTS = """198.51.100.11:6443 0 
[2001:db8::12]:6443 1 bash: connect: Connection refused
198.51.100.13:6443 124 
198.51.100.14:6443 1 bash: connect: No route to host
api.example:6443 1 bash: line 1: api.example: Name or service not known
198.51.100.15:6443 127 timeout: failed to run command 'bash': No such file or directory
"""  # noqa: W291 - as doctor.sh prints it


def test_host_that_refuses_is_told_from_one_that_does_not_answer() -> None:
    assert ground.parse_contacts(CONTACTS) == {
        "198.51.100.11:6443": Contact("taken"),
        "[2001:db8::12]:6443": Contact("refused", "Connection refused"),
        "198.51.100.13:6443": Contact("unanswered", "no answer within 3 s"),
        "198.51.100.14:6443": Contact("unanswered", "No route to host"),
        "api.example:6443": Contact("unanswered", "Name or service not known"),
        "198.51.100.15:6443": Contact("unknown", "there is no bash to connect with"),
    }


def answered(answers: Mapping[str, tuple[int, str]]) -> str:
    """Return what the probe prints of questions that were answered so."""
    parts = []
    for question, (status, text) in answers.items():
        lines = "".join(f"| {line}\n" for line in text.splitlines())
        parts.append(f"@ {question}\n{lines}= {status}\n")
    return "".join(parts) + END_MARK + "\n"


def test_ground_of_a_node_is_all_of_it_together() -> None:
    text = answered(
        {
            "ground machine": (0, "sys_vendor QEMU"),
            "links": (0, LINKS),
            "ground available haproxy": (0, APT),
            "ground owners eth0 198.51.100.100": (0, "198.51.100.100 dev eth0 lladdr 02:00:00:00:00:0c REACHABLE"),
            "ground adverts 198.51.100.100 eth0 4": (0, HEARD),
            "ground contacts 198.51.100.11:6443": (0, CONTACTS),
        }
    )
    found = ground.parse(text)
    assert found.machine.vendor == "QEMU"
    assert found.interfaces["host0"].mtu == 1450
    assert found.available.listed
    assert found.owners == {ip_address("198.51.100.100"): Owners(frozenset({"02:00:00:00:00:0c"}))}
    assert (len(found.adverts or ()), found.deaf) == (3, "")
    assert len(found.contacts) == 6


def test_silence_is_told_from_nobody_having_listened() -> None:
    assert ground.parse(answered({"ground adverts a eth0 4": (0, "")})).adverts == ()
    deaf = ground.parse(answered({"ground adverts a eth0 4": (127, "there is no tcpdump")}))
    assert (deaf.adverts, deaf.deaf) == (None, "there is no tcpdump")


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("links", "2: eth0 is odd"),
        ("ground owners eth0 198.51.100.100", "198.51.100.100 arping odd"),
        ("ground owners eth0 198.51.100.100", "198.51.100.100 Object is odd"),
        ("ground owners eth0 198.51.100.100", "odd REACHABLE"),
        ("ground adverts 198.51.100.100 eth0 4", "IP odd > there: VRRPv2, Advertisement, vrid 68, prio 1"),
        ("ground contacts 198.51.100.11:6443", "198.51.100.11:6443 odd"),
    ],
)
def test_answer_that_is_not_understood_is_an_error_with_its_words(question: str, text: str) -> None:
    with pytest.raises(FactsError, match="odd"):
        ground.parse(answered({question: (0, text)}))


def test_every_question_is_words_that_need_no_quotes() -> None:
    of = cluster()
    asked = ground.questions(of, of.nodes[0])
    assert len(set(asked)) == len(asked)
    assert not any(sign in question for question in asked for sign in "\"'`$*?;&|<>\\")
