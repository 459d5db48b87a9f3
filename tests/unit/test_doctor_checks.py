"""Every answer that each check of doctor can give."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from exlb_fab import checks, firewall
from exlb_fab.checks import Verdict, View, doctor
from exlb_fab.checks.doctor import CHECKS
from exlb_fab.cluster import Address as IpAddress
from exlb_fab.cluster import Cluster, Node, Vip
from exlb_fab.errors import ExlbError, FactsError, HostKeyError, PrivilegeError, UnreachableError
from exlb_fab.facts import Address, Facts, Generations, Socket, Survey, System, Unit
from exlb_fab.ground import Advert, Available, Contact, Ground, Interface, Owners, questions
from exlb_fab.host import Space
from exlb_fab.planning import NodeContradictionError, refuse_contradictions
from exlb_fab.platforms import PROGRAMS, parse_version
from exlb_fab.rendering import Target, Templates, render
from exlb_fab.selinux import Selinux
from tests.fake import GIGABYTE, PROXY, VIP, VRRP, cluster, converged, instance, mac
from tests.unit.test_doctor_ground import machine

DOCTOR = Path(doctor.__file__).parent
THREE = cluster()
LB1, LB2, LB3 = THREE.nodes
STRANGER = "02:00:00:00:00:99"
OTHER = ip_address("198.51.100.99")
GROUP = ip_address("224.0.0.18")
FRESH = Unit("not-found", "inactive", "dead", "")
RUNNING = Unit("loaded", "active", "running", "enabled")
MASKED = Unit("masked", "inactive", "dead", "masked")
BARE = frozenset({"ip", "ss", "ping"})
WANTED = ("haproxy", "keepalived", "psmisc", "curl", "socat")
TAKEN = Contact("taken")
REFUSED = Contact("refused", "Connection refused")
SILENT = Contact("unanswered", "no answer within 3 s")
ALL_TAKEN = {backend.endpoint: TAKEN for backend in THREE.apiserver_listener.backends}
DEBIAN = System("Debian GNU/Linux 12 (bookworm)", "lb", None, 0, ("debian",), ("apt-get",), 2000.0)
RENDERED = render(THREE, LB1, Templates(), Target()).files
GROUND = Ground(
    interfaces={"lo": Interface(True, True, 65536), "eth0": Interface(True, True, 1500)},
    available=Available(dict.fromkeys(WANTED, "2.6.12-1"), listed=True),
    owners={VIP: Owners()},
    adverts=(),
    contacts=ALL_TAKEN,
)


def fresh(of: Cluster, node: Node) -> Facts:
    """Return the facts of a node on which nothing is installed yet."""
    found = converged(of, node, RENDERED)
    return replace(
        found,
        programs=BARE,
        units=dict.fromkeys(("haproxy", "keepalived"), FRESH),
        proxy_version=None,
        keepalived_version=None,
        sockets=(),
        files={},
        proxy_state=None,
        instances=(),
        replies={},
        system=DEBIAN,
        macs={"eth0": mac(node)},
    )


FRESH_FACTS = {node: fresh(THREE, node) for node in THREE.nodes}


def view(
    *,
    of: Cluster = THREE,
    errors: Mapping[Node, ExlbError] | None = None,
    expect_no_apiserver: bool = False,
    ground: Mapping[str, Any] | None = None,
    **lb2: Any,
) -> View:
    """Return what was seen of three fresh nodes; `ground` and the rest differ on lb2."""
    errors = errors or {}
    facts = {node: FRESH_FACTS[node] for node in of.nodes if node not in errors}
    grounds = dict.fromkeys(facts, GROUND)
    if LB2 in facts:
        facts[LB2] = replace(facts[LB2], **lb2)
        grounds[LB2] = replace(GROUND, **(ground or {}))
    return View(of, Survey(facts, errors), {}, expect_no_apiserver, grounds=grounds)


def verdict(check: str, seen: View, node: Node | None = LB2) -> Verdict:
    (found,) = [each for each in checks.verdicts(seen, CHECKS) if (each.check, each.node) == (check, node)]
    return found


def test_every_answer_about_fresh_nodes_is_a_pass() -> None:
    found = list(checks.verdicts(view(), CHECKS))
    assert [each for each in found if each.status != "pass"] == []
    assert [check.id for check in CHECKS] == list(dict.fromkeys(each.check for each in found))


def test_every_finding_says_what_to_do() -> None:
    seen = view(
        of=replace(THREE, vrrp=replace(VRRP, mode="multicast")),
        addresses=(Address("eth0", ip_interface("203.0.113.2/24")),),
        sockets=(Socket(None, 8443, "nginx"),),
        selinux=Selinux(enforcing=True, ports=None),
        system=replace(DEBIAN, families=("slackware",), managers=()),
        units={"haproxy": MASKED, "keepalived": RUNNING},
        ground={
            "machine": machine("azure"),
            "interfaces": {"eth0": Interface(True, True, 9000)},
            "owners": {VIP: Owners(frozenset({STRANGER}))},
            "adverts": (Advert(OTHER, GROUP, 68),),
            "contacts": dict.fromkeys(ALL_TAKEN, SILENT),
        },
    )
    found = [each for each in checks.verdicts(seen, CHECKS) if each.status in ("warn", "fail")]
    assert len(found) == 10
    assert [each for each in found if not each.hint] == []


def test_no_finding_is_written_without_what_to_do() -> None:
    """By the code of the checks: no look at nodes finds everything at once."""
    said = [
        (place.name, call)
        for place in (*DOCTOR.glob("*.py"), DOCTOR.parent / "host.py", DOCTOR.parent / "firewall.py")
        for call in ast.walk(ast.parse(place.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("failed", "warned")
    ]
    assert {name for name, _ in said} >= {"access.py", "system.py", "network.py", "segment.py", "host.py"}
    assert [f"{name}:{call.lineno}" for name, call in said if "hint" not in [each.arg for each in call.keywords]] == []


# access


@pytest.mark.parametrize(
    ("error", "ssh", "root"),
    [
        (UnreachableError("lb2: cannot connect", hint="is it up?"), "fail", "skip"),
        (HostKeyError("lb2: host key of lb2 is not known", hint="ssh-keyscan"), "fail", "skip"),
        (PrivilegeError("lb2: sudo refuses: a password is required", hint="--ask-sudo-pass"), "pass", "fail"),
        (FactsError("lb2: the probe ended early"), "pass", "fail"),
        (PrivilegeError("lb2: sudo refuses: not for you"), "pass", "fail"),
    ],
)
def test_node_that_cannot_be_asked_is_told_where_it_fails(error: ExlbError, ssh: str, root: str) -> None:
    seen = view(errors={LB2: error})
    found = {name: verdict(f"access.{name}", seen) for name in ("ssh", "root")}
    assert (found["ssh"].status, found["root"].status) == (ssh, root)
    failing = next(each for each in found.values() if each.status == "fail")
    assert (failing.text, failing.hint) == (error.message, error.hint or "exlb ssh lb2 shows how the node answers")
    assert failing.unreachable == isinstance(error, UnreachableError)
    assert verdict("access.root", seen, LB1).status == "pass"


def test_user_who_is_not_root_is_named() -> None:
    found = verdict("access.root", view(system=replace(DEBIAN, user_id=1000)))
    assert found.status == "fail"
    assert "SUDO=yes" in str(found.hint)


# system


def test_distribution_that_exlb_does_not_know_is_a_failure_until_all_is_there() -> None:
    odd = replace(DEBIAN, name="Slackware", families=("slackware",), managers=())
    found = verdict("system.release", view(system=odd))
    assert found.status == "fail"
    assert "haproxy" in str(found.hint)
    assert verdict("system.packages", view(system=odd)).status == "skip"
    programs = frozenset({PROXY.process, *PROGRAMS})
    assert verdict("system.release", view(system=odd, programs=programs)).status == "pass"


def test_versions_that_would_be_installed_are_told() -> None:
    assert "keepalived 2.6.12-1" in verdict("system.packages", view()).text


def test_package_that_no_repository_has_is_a_failure() -> None:
    there = {name: "1.0" for name in WANTED if name != "socat"}
    found = verdict("system.packages", view(ground={"available": Available(there, listed=True)}))
    assert (found.status, found.text) == ("fail", "no repository of the node has socat")
    assert "apt-get update" in str(found.hint)


def test_node_without_lists_of_its_repositories_says_that_it_does_not_know() -> None:
    found = verdict("system.packages", view(ground={"available": Available()}))
    assert found.status == "warn"
    assert "offline" in str(found.cause)


@pytest.mark.parametrize(("version", "status"), [("1.3.5-19.el7", "fail"), ("2.0.3", "fail"), ("1:2.2.7-1", "pass")])
def test_keepalived_that_a_push_would_refuse_is_a_failure(version: str, status: str) -> None:
    available = Available({**GROUND.available.versions, "keepalived": version}, listed=True)
    assert verdict("system.packages", view(ground={"available": available})).status == status


def test_what_is_installed_needs_no_repository() -> None:
    there = frozenset({PROXY.process, *PROGRAMS})
    seen = view(
        programs=there,
        proxy_version=parse_version("2.6.12"),
        keepalived_version=parse_version("2.2.7"),
        ground={"available": Available()},
    )
    found = verdict("system.packages", seen)
    assert (found.status, found.text) == ("pass", "all is installed: haproxy 2.6.12, keepalived 2.2.7")


def test_public_cloud_is_a_failure_that_names_it_and_what_serves_there() -> None:
    found = verdict("system.machine", view(ground={"machine": machine("azure")}))
    assert (found.status, found.text) == ("fail", "a machine of Microsoft Azure")
    assert "an Azure Load Balancer" in str(found.hint)


def test_private_cloud_may_carry_the_vip() -> None:
    found = verdict("system.machine", view(ground={"machine": machine("openstack-nova")}))
    assert (found.status, found.text) == ("warn", "a machine of OpenStack")
    assert f"--allowed-address ip-address={VIP}" in str(found.hint)


def test_container_in_a_cloud_is_not_judged_by_the_firmware_of_its_host() -> None:
    contained = replace(DEBIAN, container="lxc")
    assert verdict("system.machine", view(system=contained)).status == "pass"
    found = verdict("system.machine", view(system=contained, ground={"machine": machine("amazon-nitro")}))
    assert (found.status, found.text) == ("warn", "a container (lxc) on a machine of Amazon EC2")


@pytest.mark.parametrize(
    ("selinux", "status", "text"),
    [
        (Selinux(), "pass", "not enforcing"),
        (Selinux(enforcing=True, allowed=True), "pass", "enforcing, and lets the proxy in"),
        (Selinux(enforcing=True, allowed=False), "pass", "enforcing; a push runs setsebool -P haproxy_connect_any 1"),
        (Selinux(enforcing=True, ports=None), "fail", "enforcing, and there is no semanage to let the proxy in"),
    ],
)
def test_selinux_is_told_with_what_a_push_does_about_it(selinux: Selinux, status: str, text: str) -> None:
    found = verdict("system.selinux", view(selinux=selinux))
    assert (found.status, found.text) == (status, text)


def test_keepalived_of_somebody_else_is_told_before_a_push_takes_it_over() -> None:
    units = {"haproxy": FRESH, "keepalived": RUNNING}
    found = verdict("system.vacant", view(units=units))
    assert (found.status, found.text) == ("warn", "not of exlb: keepalived runs already")
    assert verdict("system.vacant", view(units=units, generations=Generations(current=3))).status == "pass"
    masked = verdict("system.vacant", view(units={"haproxy": MASKED, "keepalived": FRESH}))
    assert (masked.status, masked.text) == ("fail", "masked: haproxy")


# host

ROOMY = Space("/etc", "/", True, 50 * GIGABYTE, 100 * GIGABYTE, 500_000, 1_000_000)
INSTALLED = frozenset({PROXY.process, *PROGRAMS})


@pytest.mark.parametrize("path", ["/usr", "/var/cache"])
@pytest.mark.parametrize(
    ("free_mb", "status", "text"),
    [
        (9, "fail", "no space for the packages: {path} (on {path}): 9 MB and 500000 inodes left"),
        (99, "warn", "{path} (on {path}): 99 MB and 500000 inodes left"),
        (101, "pass", "enough"),
    ],
)
def test_packages_that_are_missing_want_room(path: str, free_mb: int, status: str, text: str) -> None:
    spaces = (ROOMY, Space(path, path, True, free_mb * 10**6, 200 * 10**6, 500_000, 1_000_000))
    found = verdict("host.space", view(spaces=spaces))
    assert (found.status, found.text) == (status, text.format(path=path))
    assert (found.cause == "the packages that are missing may take 100 MB") == (status == "warn")
    assert verdict("host.space", view(spaces=spaces, programs=INSTALLED)).status == "pass"


def test_usr_that_cannot_be_written_to_matters_as_long_as_packages_are_missing() -> None:
    spaces = (ROOMY, replace(ROOMY, path="/usr", mount="/usr", writable=False))
    assert verdict("host.space", view(spaces=spaces)).text == "cannot write to /usr"
    assert verdict("host.space", view(spaces=spaces, programs=INSTALLED)).status == "pass"


def test_room_for_packages_is_asked_for() -> None:
    (asked,) = [each for each in questions(THREE, LB1) if each.startswith("space ")]
    assert {"/usr", "/var/cache"} <= set(asked.split())


# network


def test_interface_that_is_not_there_is_a_failure_which_names_the_right_one() -> None:
    renamed = (Address("ens3", ip_interface("198.51.100.12/24")),)
    found = verdict(
        "network.interface", view(addresses=renamed, ground={"interfaces": {"ens3": Interface(True, True, 1500)}})
    )
    assert (found.status, found.text, found.cause) == ("fail", "there is no interface eth0", "there is ens3")
    assert str(found.hint).startswith("VIP_IF=ens3 ")


def test_network_of_an_interface_is_none_that_every_interface_has() -> None:
    found = verdict(
        "network.interface", view(addresses=(*FRESH_FACTS[LB2].addresses, Address("eth0", ip_interface("fe80::2/64"))))
    )
    assert (found.status, found.text) == ("pass", "eth0, 198.51.100.0/24")


@pytest.mark.parametrize(
    ("interface", "text"),
    [
        (Interface(False, True, 1500), "eth0 is down"),
        (Interface(True, False, 1500), "eth0 has no carrier"),
    ],
)
def test_interface_that_carries_nothing_is_a_failure(interface: Interface, text: str) -> None:
    found = verdict("network.interface", view(ground={"interfaces": {"eth0": interface}}))
    assert (found.status, found.text) == ("fail", text)


def test_network_without_the_vip_is_a_failure() -> None:
    addresses = (
        Address("eth0", ip_interface("203.0.113.2/24")),
        Address("eth1", ip_interface("198.51.100.12/24")),
    )
    found = verdict("network.interface", view(addresses=addresses))
    assert (found.status, found.cause, found.hint) == ("fail", "it has 203.0.113.0/24", "VIP_IF=eth1")


@pytest.mark.parametrize("prefix", [None, 24])
def test_vip_that_a_push_would_refuse_is_a_failure(prefix: int | None) -> None:
    of = replace(THREE, vip=Vip(VIP, prefix))
    addresses = (Address("eth0", ip_interface("203.0.113.2/24")),)
    with pytest.raises(NodeContradictionError):
        refuse_contradictions(of, {LB2: replace(FRESH_FACTS[LB2], addresses=addresses)})
    assert verdict("network.interface", view(of=of, addresses=addresses)).status == "fail"


def test_vip_itself_makes_no_network_of_the_node() -> None:
    addresses = (Address("eth0", ip_interface("203.0.113.2/24")), Address("eth0", ip_interface(f"{VIP}/24")))
    assert verdict("network.interface", view(addresses=addresses)).status == "fail"


def test_interface_that_is_to_be_found_and_is_not_is_a_failure() -> None:
    of = replace(THREE, nodes=tuple(replace(node, interface=None) for node in THREE.nodes))
    nodes = {node.name: node for node in of.nodes}
    facts = {nodes[node.name]: found for node, found in FRESH_FACTS.items()}
    facts[nodes["lb2"]] = replace(facts[nodes["lb2"]], addresses=(Address("eth0", ip_interface("203.0.113.2/24")),))
    seen = View(of, Survey(facts, {}), {}, grounds=dict.fromkeys(facts, GROUND))
    found = verdict("network.interface", seen, nodes["lb2"])
    assert (found.status, found.cause) == ("fail", "it has eth0 203.0.113.0/24")
    assert verdict("network.interface", seen, nodes["lb1"]).text == "eth0, 198.51.100.0/24"
    assert verdict("network.mtu", seen, None).status == "pass"


def test_mtu_that_differs_is_a_warning_with_who_has_which() -> None:
    found = verdict("network.mtu", view(ground={"interfaces": {"eth0": Interface(True, True, 9000)}}), None)
    assert (found.status, found.text) == ("warn", "1500 on lb1 (eth0), lb3 (eth0); 9000 on lb2 (eth0)")
    assert verdict("network.mtu", view(errors=dict.fromkeys(THREE.nodes, UnreachableError("x"))), None).status == "skip"


def test_port_that_somebody_has_is_a_failure_with_who_and_the_variable() -> None:
    sockets = (Socket("0.0.0.0", 8443, "nginx"), Socket("127.0.0.1", 10080, None), Socket("0.0.0.0", 22, "sshd"))
    found = verdict("network.ports", view(sockets=sockets))
    assert (found.status, found.text) == ("fail", "nginx listens on 8443, another process listens on 10080")
    assert "APISERVER_DEST_PORT, STATS_PORT" in str(found.hint)


def test_port_on_another_address_is_free() -> None:
    of = replace(THREE, proxying=replace(THREE.proxying, bind="vip"))
    assert verdict("network.ports", view(of=of, sockets=(Socket("198.51.100.12", 8443, "nginx"),))).status == "pass"


def test_proxy_that_runs_already_has_its_own_port() -> None:
    units = {"haproxy": RUNNING, "keepalived": FRESH}
    sockets = (Socket("0.0.0.0", 8443, "haproxy"),)
    assert verdict("network.ports", view(units=units, sockets=sockets)).status == "pass"


def test_proxy_of_a_pod_has_a_port_that_the_unit_could_not_have() -> None:
    found = verdict("network.ports", view(sockets=(Socket("0.0.0.0", 8443, "haproxy"),)))
    assert (found.status, found.text) == (
        "fail",
        "a haproxy that is not the unit haproxy (of a pod, or started by hand) listens on 8443",
    )
    assert "APISERVER_DEST_PORT" in str(found.hint)


def contacts(*found: Contact) -> dict[str, dict[str, Contact]]:
    return {"contacts": dict(zip(ALL_TAKEN, found, strict=True))}


@pytest.mark.parametrize(
    ("found", "status", "before_init"),
    [
        ((TAKEN, TAKEN, TAKEN), "pass", "pass"),
        ((TAKEN, REFUSED, TAKEN), "warn", "pass"),
        ((TAKEN, SILENT, TAKEN), "warn", "warn"),
        ((REFUSED, REFUSED, REFUSED), "fail", "pass"),
        ((SILENT, SILENT, SILENT), "fail", "warn"),
        ((Contact("unknown", "there is no bash"), Contact("unknown"), Contact("unknown")), "skip", "skip"),
    ],
)
def test_apiservers_are_not_expected_before_kubeadm_init(
    found: tuple[Contact, ...], status: str, before_init: str
) -> None:
    assert verdict("network.apiservers", view(ground=contacts(*found))).status == status
    before = view(ground=contacts(*found), expect_no_apiserver=True)
    assert verdict("network.apiservers", before).status == before_init


def test_apiserver_that_is_not_reached_is_named_with_why() -> None:
    found = verdict("network.apiservers", view(ground=contacts(TAKEN, SILENT, TAKEN)))
    assert found.text == "reaches 2 of 3: 198.51.100.12:6443: no answer within 3 s"
    refused = verdict("network.apiservers", view(ground=contacts(REFUSED, REFUSED, REFUSED)))
    assert "--expect-no-apiserver" in str(refused.hint)


# segment


def owned(*macs: str, ping: bool = False) -> dict[str, dict[IpAddress, Owners]]:
    return {"owners": {VIP: Owners(frozenset(macs), ping)}}


def test_stranger_with_the_vip_is_a_failure_with_its_mac() -> None:
    found = verdict("segment.vip", view(ground=owned(STRANGER)))
    assert (found.status, found.text) == ("fail", f"{STRANGER} answers for {VIP}")


def test_vip_that_answers_from_another_network_is_a_failure() -> None:
    found = verdict("segment.vip", view(ground=owned(ping=True)))
    assert (found.status, found.text) == ("fail", f"{VIP} answers a ping from behind a router")


def test_stranger_may_be_a_node_that_could_not_be_asked() -> None:
    seen = view(errors={LB3: UnreachableError("lb3: cannot connect")}, ground=owned(STRANGER))
    assert verdict("segment.vip", seen).status == "skip"


def test_node_of_ours_that_has_the_vip_is_no_stranger() -> None:
    found = verdict("segment.vip", view(ground=owned(mac(LB1))))
    assert (found.status, found.text) == ("pass", "lb1 has it")


def holding() -> tuple[Address, ...]:
    return (*FRESH_FACTS[LB2].addresses, Address("eth0", ip_interface(f"{VIP}/32")))


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"generations": Generations(current=1)}, "pass", "exlb runs there"),
        ({"units": {"haproxy": RUNNING, "keepalived": RUNNING}}, "warn", "not exlb's"),
        ({}, "fail", "no keepalived runs there"),
    ],
)
def test_node_that_has_the_vip_itself_may_have_it_from_exlb_alone(
    changes: dict[str, Any], status: str, words: str
) -> None:
    found = verdict("segment.vip", view(addresses=holding(), **changes))
    assert found.status == status
    assert words in found.text
    assert status != "fail" or f"ip addr del {VIP}/32 dev eth0" in str(found.hint)


def test_extra_vip_is_asked_for_as_well() -> None:
    extra = Vip(ip_address("198.51.100.101"), None)
    of = replace(THREE, extra_vips=(extra,))
    found = verdict(
        "segment.vip", view(of=of, ground={"owners": {VIP: Owners(), extra.address: Owners(frozenset({STRANGER}))}})
    )
    assert found.status == "fail"
    assert "198.51.100.101" in found.text


@pytest.mark.parametrize(
    ("mode", "advert", "status"),
    [
        ("multicast", Advert(OTHER, GROUP, 68), "fail"),
        ("unicast", Advert(OTHER, GROUP, 68), "warn"),
        ("unicast", Advert(OTHER, LB2.address, 68), "fail"),
        ("multicast", Advert(OTHER, GROUP, 51), "pass"),
        ("multicast", Advert(LB1.address, GROUP, 68), "pass"),
    ],
)
def test_vrid_of_another_group_is_a_failure_where_the_two_meet(mode: Any, advert: Advert, status: str) -> None:
    of = replace(THREE, vrrp=replace(VRRP, mode=mode))
    found = verdict("segment.vrid", view(of=of, ground={"adverts": (advert,)}))
    assert found.status == status
    assert status == "pass" or str(OTHER) in found.text


def test_advert_from_any_address_of_ours_is_no_strangers() -> None:
    link_local = ip_interface("fe80::2/64")
    adverts = (Advert(link_local.ip, ip_address("ff02::12"), 68),)
    seen = view(addresses=(*FRESH_FACTS[LB2].addresses, Address("eth0", link_local)), ground={"adverts": adverts})
    assert verdict("segment.vrid", seen).status == "pass"


def test_master_that_a_running_keepalived_hears_is_a_stranger() -> None:
    seen = view(instances=(instance(THREE, LB2, master=OTHER),), ground={"adverts": None, "deaf": "no tcpdump"})
    found = verdict("segment.vrid", seen)
    assert (found.status, found.text) == ("fail", f"{OTHER} sends adverts with VRID 68")


def test_nobody_can_listen_where_there_is_no_interface() -> None:
    ended = {"adverts": None, "deaf": "tcpdump ended with status 1"}
    assert verdict("segment.vrid", view(ground={**ended, "interfaces": {}})).status == "skip"
    found = verdict("segment.vrid", view(ground=ended))
    assert (found.status, found.text) == ("warn", "nobody has listened: tcpdump ended with status 1")
    assert "tcpdump -n -i eth0" in str(found.hint)


def test_nobody_having_listened_is_said() -> None:
    found = verdict("segment.vrid", view(ground={"adverts": None, "deaf": "there is no tcpdump"}))
    assert (found.status, found.text) == ("warn", "nobody has listened: there is no tcpdump")
    assert found.hint == "exlb exec --sudo --nodes lb2 -- apt-get install -y tcpdump; then exlb doctor again"


# firewall

CLOSED = firewall.parse(
    "iptables *filter\niptables :INPUT DROP [0:0]\n"
    "iptables -A INPUT -i lo -j ACCEPT\niptables -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\niptables COMMIT"
)


def test_closed_firewall_is_a_failure_until_a_push_may_open_it() -> None:
    seen = view(firewall=CLOSED)
    found = {name: verdict(f"firewall.{name}", seen) for name in ("vrrp", "ports", "backends")}
    assert {name: each.status for name, each in found.items()} == {"vrrp": "fail", "ports": "fail", "backends": "warn"}
    managed = view(of=replace(THREE, firewall="manage"), firewall=CLOSED)
    assert {verdict(f"firewall.{name}", managed).status for name in ("vrrp", "ports")} == {"pass"}
    assert verdict("firewall.vrrp", managed).text.endswith("; a push opens it")
    assert verdict("firewall.backends", managed).status == "warn"
    assert verdict("firewall.vrrp", managed, LB1).text == "open"
    held = firewall.Firewall((firewall.Table("inet", "f", {"out": firewall.Chain("output", "drop", ())}),))
    assert verdict("firewall.vrrp", view(of=replace(THREE, firewall="manage"), firewall=held)).status == "fail"
