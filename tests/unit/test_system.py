"""Which files of its system a node gets, what is read of that system, and what of it is left alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from exlb_fab import answers, facts, questions, rendering, system
from exlb_fab.cluster import Address, Cluster, Vip
from exlb_fab.errors import FactsError
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES
from exlb_fab.rendering import Rendered, Target, Templates, render
from exlb_fab.system import SYSCTL_PATH, UNLIMITED, Link, Settings, UnitSettings, drop_in
from tests.fake import COMPLETE, ONLINE, cluster

PROXY = PROXIES["haproxy"]
HEADER = "# Written by exlb: changes made here are lost at its next push.\n"
GUARD = "/etc/systemd/network/10-eth0.network.d/exlb.conf"
TEMPLATES = Templates()
NOTHING_KNOWN = Settings()

# Debian 12, systemd 252: `unit-files` of the probe, comments shortened.
HAPROXY_12 = """\
DefaultLimitNOFILE=524288
# /lib/systemd/system/haproxy.service
[Unit]
Description=HAProxy Load Balancer
After=network-online.target rsyslog.service
Wants=network-online.target

[Service]
Environment="CONFIG=/etc/haproxy/haproxy.cfg" "PIDFILE=/run/haproxy.pid" "EXTRAOPTS=-S /run/haproxy-master.sock"
ExecStart=/usr/sbin/haproxy -Ws -f $CONFIG -p $PIDFILE $EXTRAOPTS
KillMode=mixed
Restart=always
SuccessExitStatus=143
Type=notify

# NoNewPrivileges=true

[Install]
WantedBy=multi-user.target
"""
KEEPALIVED_12 = """\
DefaultLimitNOFILE=524288
# /lib/systemd/system/keepalived.service
[Unit]
Description=Keepalive Daemon (LVS and VRRP)
After=network-online.target
Wants=network-online.target
ConditionFileNotEmpty=/etc/keepalived/keepalived.conf

[Service]
Type=notify
EnvironmentFile=-/etc/default/keepalived
ExecStart=/usr/sbin/keepalived --dont-fork $DAEMON_ARGS
ExecReload=/bin/kill -HUP $MAINPID
"""


def with_proxying(**changes: Any) -> Cluster:
    plain = cluster()
    return replace(plain, proxying=replace(plain.proxying, **changes))


def texts(of: Cluster, settings: Settings = NOTHING_KNOWN, interface: str | None = "eth0") -> dict[str, str]:
    return {file.path: file.text for file in system.files(of, interface, settings)}


# Drop-ins of units


def test_unit_that_says_nothing_gets_all() -> None:
    assert drop_in(UnitSettings(), 41000) == (
        f"{HEADER}\n[Unit]\nWants=network-online.target\nAfter=network-online.target\n"
        "\n[Service]\nRestart=on-failure\nRestartSec=2\nLimitNOFILE=41000\n"
    )


def test_unit_that_lacks_nothing_gets_no_drop_in() -> None:
    assert drop_in(COMPLETE, 0) == drop_in(COMPLETE, 524288) == ""


@pytest.mark.parametrize("restart", ["always", "on-failure", "on-abnormal", "on-abort"])
def test_restart_that_somebody_has_chosen_stays(restart: str) -> None:
    assert "Restart" not in drop_in(replace(COMPLETE, restart=restart), 600000)


@pytest.mark.parametrize(
    ("own", "wanted", "written"),
    [
        (None, 41000, True),
        (1024, 41000, True),
        (41000, 41000, False),
        (524288, 41000, False),
        (UNLIMITED, 10**9, False),
    ],
)
def test_file_limit_is_raised_and_never_lowered(own: int | None, wanted: int, *, written: bool) -> None:
    assert (f"LimitNOFILE={wanted}" in drop_in(replace(COMPLETE, file_limit=own), wanted)) == written


def test_only_the_proxy_needs_many_files_and_only_where_maxconn_is_set() -> None:
    plenty = texts(with_proxying(maxconn=20000))
    assert f"LimitNOFILE={PROXY.file_limit(20000)}\n" in plenty[system.drop_in_path("haproxy")]
    assert "LimitNOFILE" not in plenty[system.drop_in_path("keepalived")]
    assert not any("LimitNOFILE" in text for text in texts(cluster()).values())


def test_debian_lacks_a_restart_of_keepalived_and_nothing_else() -> None:
    units = {
        name: answers.parse_unit_files(name, text)
        for name, text in (("haproxy", HAPROXY_12), ("keepalived", KEEPALIVED_12))
    }
    found = texts(with_proxying(maxconn=20000), Settings(units=units))
    assert found == {
        system.drop_in_path("haproxy"): "",
        system.drop_in_path("keepalived"): f"{HEADER}\n[Service]\nRestart=on-failure\nRestartSec=2\n",
        SYSCTL_PATH: "",
    }


# Reading a unit


def test_what_exlb_has_written_is_not_what_the_unit_says() -> None:
    ours = f"\n# {system.drop_in_path('keepalived')}\n{drop_in(UnitSettings(), 41000)}"
    theirs = "\n# /etc/systemd/system/keepalived.service.d/z.conf\n[Service]\nLimitNOFILE=2K:4K\n"
    assert answers.parse_unit_files("keepalived", KEEPALIVED_12 + ours) == UnitSettings(ONLINE, ONLINE, "no", 524288)
    assert answers.parse_unit_files("keepalived", KEEPALIVED_12 + ours + theirs).file_limit == 4096


def test_last_word_of_a_unit_counts_and_an_empty_one_takes_back() -> None:
    text = "# /a\n[Unit]\nAfter=network-online.target a.service\n[Service]\nRestart=always\n"
    text += "# /b\nRestart=on-abort\n; Restart=no\n"
    found = answers.parse_unit_files("haproxy", text)
    assert found.restart == "on-abort"
    assert found.after == {"network-online.target", "a.service"}
    assert answers.parse_unit_files("haproxy", f"{text}[Unit]\nAfter=\nAfter=b.service\nRestart=\n") == UnitSettings(
        after=frozenset({"b.service"})
    )


def test_what_a_unit_binds_is_known_by_where_it_binds_it() -> None:
    text = "# /a\n[Service]\nBindPaths=/x /y:/z:rbind\nBindReadOnlyPaths=-/dev/log:/var/lib/haproxy/dev/log\n"
    assert answers.parse_unit_files("haproxy", text).bound == {"/z", PROXY.log_socket}
    assert answers.parse_unit_files("haproxy", f"{text}BindReadOnlyPaths=\n").bound == {"/z"}


@pytest.mark.parametrize(
    ("text", "limit"), [("infinity", UNLIMITED), ("1024:infinity", UNLIMITED), ("65536", 65536), ("1M", 1 << 20)]
)
def test_every_form_of_a_limit_is_read(text: str, limit: int) -> None:
    assert answers.parse_unit_files("haproxy", f"LimitNOFILE={text}\n").file_limit == limit


def test_limit_of_another_form_is_named() -> None:
    with pytest.raises(FactsError, match="LimitNOFILE=many is not understood"):
        answers.parse_unit_files("haproxy", "LimitNOFILE=many\n")


# Kernel settings


def test_proxy_that_binds_all_addresses_needs_nothing_of_the_kernel() -> None:
    assert texts(cluster())[SYSCTL_PATH] == ""


@pytest.mark.parametrize("bind", ["vip", "node"])
def test_proxy_that_binds_the_vip_may_do_so_before_its_node_holds_it(bind: str) -> None:
    assert texts(with_proxying(bind=bind))[SYSCTL_PATH] == f"{HEADER}net.ipv4.ip_nonlocal_bind = 1\n"


@pytest.mark.parametrize(
    ("bind", "written"),
    [
        (IPv4Address("198.51.100.100"), "net.ipv4.ip_nonlocal_bind = 1\n"),
        (IPv6Address("2001:db8::100"), "net.ipv6.ip_nonlocal_bind = 1\n"),
        (IPv4Address("198.51.100.11"), ""),
    ],
)
def test_statistics_page_on_a_vip_binds_it_before_its_node_holds_it(bind: Address, written: str) -> None:
    plain = cluster()
    vips = (Vip(IPv4Address("198.51.100.100"), 24), Vip(IPv6Address("2001:db8::100"), 64))
    of = replace(plain, vip=vips[0], extra_vips=vips[1:], stats=replace(plain.stats, bind=bind))
    assert texts(of)[SYSCTL_PATH] == (written and HEADER + written)


def test_vip_of_each_family_has_a_setting_of_its_own() -> None:
    six = Vip(IPv6Address("2001:db8::100"), 64)
    both = replace(with_proxying(bind="vip"), extra_vips=(six,))
    assert texts(both)[SYSCTL_PATH] == f"{HEADER}net.ipv4.ip_nonlocal_bind = 1\nnet.ipv6.ip_nonlocal_bind = 1\n"
    assert texts(replace(both, vip=six))[SYSCTL_PATH] == f"{HEADER}net.ipv6.ip_nonlocal_bind = 1\n"


@pytest.mark.parametrize(("now", "written"), [(None, True), (10, True), (512, True), (513, False), (4096, False)])
def test_queue_of_the_log_socket_is_never_made_shorter(now: int | None, *, written: bool) -> None:
    found = texts(with_proxying(log="syslog"), Settings(dgram_qlen=now))[SYSCTL_PATH]
    assert found == (f"{HEADER}net.unix.max_dgram_qlen = 512\n" if written else "")


# The guard


def guards(settings: Settings, interface: str | None = "eth0") -> dict[str, str]:
    return {path: text for path, text in texts(cluster(), settings, interface).items() if "/network/" in path}


def networkd(keeps: str = "", file: str = "/etc/systemd/network/10-eth0.network", interface: str = "eth0") -> Settings:
    return Settings(links=(Link(interface, "networkd", file, keeps),))


@pytest.mark.parametrize(
    ("keeps", "written"),
    [
        *((keeps, "static") for keeps in ("", "no", "false")),
        *((keeps, "yes") for keeps in ("dhcp", "dhcp-on-stop", "dynamic", "dynamic-on-stop")),
    ],
)
def test_networkd_that_would_drop_the_vip_is_told_to_keep_it_and_what_it_keeps_already(
    keeps: str, written: str
) -> None:
    assert guards(networkd(keeps)) == {GUARD: f"{HEADER}\n[Network]\nKeepConfiguration={written}\n"}


@pytest.mark.parametrize("keeps", ["static", "yes"])
def test_networkd_that_keeps_the_vip_gets_no_guard(keeps: str) -> None:
    assert guards(networkd(keeps)) == {}
    assert guards(replace(networkd(keeps), guards=(GUARD,))) == {GUARD: ""}


def test_guard_of_a_generated_file_lies_where_the_next_start_finds_it() -> None:
    assert list(guards(networkd(file="/run/systemd/network/10-eth0.network"))) == [GUARD]


def test_only_the_interface_of_the_vip_is_guarded_and_a_guard_of_another_one_goes() -> None:
    assert guards(networkd(interface="eth1")) == {}
    assert guards(replace(networkd(interface="eth1"), guards=(GUARD,))) == {GUARD: ""}
    assert guards(networkd(), interface=None) == {}


def test_network_manager_gets_no_file_since_none_would_help() -> None:
    assert guards(Settings(links=(Link("eth0", "NetworkManager"),))) == {}


def test_network_is_read_with_the_facts_of_its_guards() -> None:
    text = (
        "networkd eth0 /run/systemd/network/10-netplan-eth0.network \nnetworkd eth1 /etc/a.network dhcp\n"
        f"NetworkManager eth2\nfile {GUARD} absent\n"
    )
    links, files = answers.parse_network(text)
    assert links == (
        Link("eth0", "networkd", "/run/systemd/network/10-netplan-eth0.network"),
        Link("eth1", "networkd", "/etc/a.network", "dhcp"),
        Link("eth2", "NetworkManager"),
    )
    assert files == {GUARD: facts.FileFact("absent")}


@pytest.mark.parametrize("text", ["networkd", "wicked eth0", "file /a", "networkd eth0 a b c", "file /a what is this"])
def test_network_of_another_form_is_named(text: str) -> None:
    with pytest.raises(FactsError):
        answers.parse_network(text)


# In a generation


def rendered(settings: Settings, of: Cluster) -> Rendered:
    return render(of, of.nodes[0], TEMPLATES, Target(settings=settings))


def test_every_file_of_the_system_is_written_or_taken_away_by_each_push() -> None:
    for of in (cluster(), with_proxying(bind="vip", maxconn=20000, log="syslog")):
        for settings in (Settings(), Settings(units=dict.fromkeys(("haproxy", KEEPALIVED_UNIT), COMPLETE))):
            found = rendered(settings, of)
            named = [file.path for file in (*found.files, *found.absent)]
            assert sorted(named) == sorted(set(named))
            assert set(named) >= {*system.paths(of), *rendering.paths(of)}
            assert all(file.text for file in found.files)


def test_files_of_the_system_are_for_everybody_to_read_and_of_root() -> None:
    found = rendered(Settings(), with_proxying(bind="vip"))
    ours = [file for file in found.files if file.kind in ("drop-in", "sysctl", "guard")]
    assert [(file.kind, file.mode, file.owner) for file in ours] == [
        ("drop-in", 0o644, "0:0"),
        ("drop-in", 0o644, "0:0"),
        ("sysctl", 0o644, "0:0"),
    ]


def test_questions_ask_for_the_kernel_only_where_it_matters() -> None:
    asked = questions.configuration_questions(cluster())
    assert {"unit-files haproxy", "unit-files keepalived", "network"} <= set(asked)
    assert not any(question.startswith("kernel") for question in asked)
    assert "kernel net.unix.max_dgram_qlen" in questions.configuration_questions(with_proxying(log="syslog"))


def test_kernel_is_asked_whether_the_proxy_could_start_without_the_vip() -> None:
    of = with_proxying(bind="vip")
    both = replace(of, extra_vips=(Vip(IPv6Address("2001:db8::100"), 64),))
    assert not any(each.startswith("kernel") for each in questions.service_questions(cluster(), cluster().nodes[0]))
    assert {"kernel net.ipv4.ip_nonlocal_bind", "kernel net.ipv6.ip_nonlocal_bind"} <= set(
        questions.service_questions(both, both.nodes[0])
    )
    text = "@ kernel net.ipv4.ip_nonlocal_bind\n| 0\n= 0\n@ kernel net.ipv6.ip_nonlocal_bind\n| cat: \n= 1\n"
    assert answers.parse(f"{text}exlb-probe-end\n", PROXY).kernel == {"net.ipv4.ip_nonlocal_bind": "0"}


def test_facts_reach_what_is_rendered() -> None:
    text = (
        f"@ unit-files keepalived\n{''.join(f'| {line}{chr(10)}' for line in KEEPALIVED_12.splitlines())}= 0\n"
        "@ unit-files haproxy\n| No files found for haproxy.service.\n= 1\n"
        f"@ network\n| networkd eth0 /etc/systemd/network/10-eth0.network \n| file {GUARD} absent\n= 0\n"
        "@ kernel net.unix.max_dgram_qlen\n| 10\n= 0\nexlb-probe-end\n"
    )
    found = answers.parse(text, PROXY)
    assert found.files == {GUARD: facts.FileFact("absent")}
    assert found.target(cluster()).settings == Settings(
        units={"keepalived": UnitSettings(ONLINE, ONLINE, "no", 524288)},
        links=(Link("eth0", "networkd", "/etc/systemd/network/10-eth0.network"),),
        guards=(GUARD,),
        dgram_qlen=10,
    )


def test_the_document_names_every_path() -> None:
    text = (Path(__file__).parents[2] / "docs/system.md").read_text()
    for path in (*system.paths(cluster()), f"{system.NETWORKD}/NAME.network.d/{system.DROP_IN}"):
        assert f"`{path}`" in text, path
