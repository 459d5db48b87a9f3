"""Clusters of other kinds, on the command line: what is found on the nodes, attached, made, or of another family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Site
from tests.fake import KEEPALIVED_PATH, PROXY, FakeNode

AUTO = {"VIP_IF": "auto"}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n"
CONTAINER = 'PRETTY_NAME="x"\nID=debian\nHOST=x\nCONTAINER=lxc\nUSER_ID=0\nEPOCH=2000\nMANAGERS=apt-get\n'
V6 = {
    "NODE_IPS": "(2001:db8::11 2001:db8::12 2001:db8::13)",
    "MASTER_VIP": "2001:db8::100",
    "KUBE_APISERVER": "https://[2001:db8::100]:8443",
}


def attachments(node: FakeNode) -> set[str]:
    return set(node.files) - {PROXY.path, KEEPALIVED_PATH}


# An interface that is found


def test_interface_is_found_on_each_node(site: Callable[..., Site]) -> None:
    found = site(**AUTO).deploy()
    assert {"    interface eth0" in node.files[KEEPALIVED_PATH].text for node in found.fleet} == {True}
    assert "no changes" in found.exlb("push-config").said
    found.exlb("verify")


def test_interface_that_is_not_found_refuses_a_push_before_anything_changes(site: Callable[..., Site]) -> None:
    found = site(**AUTO).deploy()
    found.change(**AUTO, BALANCE="leastconn")
    before = found.fleet.state
    found.fleet["lb2"].answers["addresses"] = (0, "2: eth0    inet 203.0.113.7/24\n")
    ran = found.exlb("push-config", status=3)
    assert (
        "lb2: VIP_IF=auto: not one interface whose network contains 198.51.100.100; it is in 203.0.113.0/24" in ran.said
    )
    assert "correct VIP_IF or the VIPs in " in ran.said
    assert found.fleet.state == before
    assert "VIP_IF=auto: not one interface has a network with 198.51.100.100" in found.exlb("verify", status=1).said


def test_interface_that_only_nodes_can_tell_is_no_matter_of_render(site: Callable[..., Site]) -> None:
    ran = site(**AUTO).exlb("render", status=1)
    assert "VIP_IF=auto: only the node can tell which interface it is" in ran.said


# What another file names


def test_scripts_and_authorities_come_before_the_files_that_name_them_and_go_back_with_them(
    green: Site, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    green.change(TRACK="apiserver,port", APISERVER_CA=str(tmp_path / "ca.crt"))
    ran = green.exlb("push-config")
    for node in green.fleet:
        assert sorted(path.rpartition("-")[0] for path in attachments(node)) == [
            "/etc/haproxy/exlb-ca",
            "/etc/keepalived/exlb-check-apiserver",
            "/etc/keepalived/exlb-check-port",
        ]
    assert "-----BEGIN CERTIFICATE-----" in ran.said
    assert "no changes" in green.exlb("push-config").said
    green.exlb("verify")
    green.exlb("rollback")
    green.exlb("rollback", "--to", "2")
    assert "no changes" in green.exlb("push-config").said


def test_attachment_that_is_gone_is_found_and_brought_again(green: Site) -> None:
    green.change(TRACK="port")
    green.exlb("push-config")
    lb2 = green.fleet["lb2"]
    (script,) = attachments(lb2)
    kept = lb2.files.pop(script)
    assert f"{script} is missing" in green.exlb("verify", status=1).said
    ran = green.exlb("push-config", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "unchanged"}
    assert lb2.files[script] == kept
    green.exlb("verify")


# What a node gets instead of what the file asks for


def test_note_about_one_node_is_told_with_the_change_and_not_without_one(green: Site) -> None:
    green.fleet["lb2"].answers["system"] = (0, CONTAINER)
    green.change(TRACK="process")
    ran = green.exlb("push-config")
    told = (
        "lb2: TRACK=process: in a container the kernel does not tell it of processes: a script checks the process every"
    )
    assert told in " ".join(ran.said.split())
    assert "lb1: TRACK" not in ran.said
    assert "vrrp_track_process" in green.fleet["lb1"].files[KEEPALIVED_PATH].text
    assert "killall -0 haproxy" in green.fleet["lb2"].files[KEEPALIVED_PATH].text
    assert "TRACK=process" not in green.exlb("push-config").said


def test_nodes_of_different_versions_get_what_each_can_read(green: Site) -> None:
    green.fleet["lb3"].proxy_version = "HA-Proxy version 1.8.30-1 2021/04/12"
    ran = green.exlb("push-config")
    assert "lb3: LOG=journal: haproxy 1.8.30 cannot: it logs to /dev/log" in " ".join(ran.said.split())
    texts = {node.name: node.files[PROXY.path].text for node in green.fleet}
    assert "option httpchk GET /readyz" in texts["lb3"]
    assert "http-check send" in texts["lb1"]
    assert "http-check send" in texts["lb2"]
    assert "no changes" in green.exlb("push-config").said


# Passwords that exlb makes


def test_made_passwords_reach_the_nodes_and_are_shown_nowhere(green: Site) -> None:
    green.change(STATS_PASSWORD="generate", AUTH_PASS="generate")
    told = green.exlb("push-config", "--yes").said + green.exlb("config").said
    kept = dict(line.split("=") for line in (green.folder / "environment.sh.secrets").read_text().splitlines())
    assert sorted(kept) == ["AUTH_PASS", "STATS_PASSWORD"]
    for node in green.fleet:
        assert f"stats auth admin:{kept['STATS_PASSWORD']}\n" in node.files[PROXY.path].text
        assert f"auth_pass {kept['AUTH_PASS']}\n" in node.files[KEEPALIVED_PATH].text
        assert {file.mode for file in node.files.values()} == {0o600}
    assert not [word for word in kept.values() if word in told]
    assert "generate, kept in" in told
    assert "no changes" in green.exlb("push-config").said


# IPv6


def test_cluster_that_is_all_ipv6_is_deployed_to_green(site: Callable[..., Site]) -> None:
    found = site(**V6).deploy()
    found.exlb("verify")
    proxy, keepalived = (found.fleet["lb1"].files[path].text for path in (PROXY.path, KEEPALIVED_PATH))
    assert "    bind [::]:8443 v6only\n" in proxy
    assert "server 2001:db8::12 [2001:db8::12]:6443 check" in proxy
    assert "        2001:db8::12\n        2001:db8::13\n" in keepalived
    assert "vrrp_version 3" in keepalived
    assert [node.name for node in found.fleet.holders] == ["lb1"]
    found.change(**V6, BALANCE="leastconn")
    found.exlb("push-config")
    assert found.fleet.most_holders == 1


@pytest.mark.parametrize("bind", ["vip", "node"])
def test_bound_to_some_addresses_alone_the_nodes_serve_and_are_green(site: Callable[..., Site], bind: str) -> None:
    found = site(BIND=bind).deploy()
    found.exlb("verify")
    assert "    bind 198.51.100.100:8443\n" in found.fleet["lb3"].files[PROXY.path].text
    assert "no changes" in found.exlb("push-config").said
