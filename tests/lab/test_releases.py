"""The main job on every release of the lab, and on several in one cluster; all other tests have bookworm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from exlb_fab.lab import Lab, down
from tests.lab.bastion import Bastion

Make = Callable[[Sequence[str]], Bastion]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Make]:
    """Make a lab whose nodes run these releases, and remove it afterwards."""
    name = f"t-releases-{os.getpid() % 10000}"
    try:
        yield lambda releases: Bastion(Lab.up(name, len(releases), releases), tmp_path)
    finally:
        down(name)


@pytest.mark.parametrize(
    "releases",
    [
        "bullseye,trixie,el9-like",
        pytest.param("bullseye,bookworm,trixie", marks=pytest.mark.slow),
        pytest.param("bullseye,bullseye", marks=pytest.mark.slow),
        pytest.param("trixie,trixie", marks=pytest.mark.slow),
        pytest.param("el9-like,el9-like", marks=pytest.mark.slow),
    ],
)
def test_deploy_takes_fresh_nodes_of_any_releases_to_green(fresh: Make, releases: str) -> None:
    bastion = fresh(releases.split(","))
    ran = bastion.exlb("deploy", "-o", "json")
    mixed = len(set(releases.split(","))) > 1
    found = {(each["check"], each["status"]) for each in ran.json["verify"]["verdicts"] if each["status"] != "pass"}
    assert found == ({("node.same-versions", "warn")} if mixed else set())
    assert bastion.holders() == ["lb1"]
    changed = bastion.environment(BALANCE="leastconn")
    with bastion.watched() as watch:
        bastion.exlb("push-config", env=changed)
    assert watch.seen.failed == 0
    assert watch.seen.moves == 0
    assert "no changes" in bastion.exlb("push-config", env=changed).said


@pytest.fixture(scope="module")
def el9(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bastion]:
    """One deployed node that lives by dnf, with the older release of the packages that there are two of."""
    name = f"t-el9-{os.getpid() % 10000}"
    try:
        bastion = Bastion(Lab.up(name, 1, ["el9-like"]), tmp_path_factory.mktemp("el9"))
        bastion.inside("lb1", "dnf", "-q", "-y", "install", "haproxy-*-1.el9", "keepalived-*-1.el9")
        bastion.exlb("deploy")
        yield bastion
    finally:
        down(name)


@pytest.mark.slow
def test_an_el9_like_node_is_one_of_its_family(el9: Bastion) -> None:
    there = "for each in apt-get dpkg dpkg-query dnf rpm; do command -v $each || true; done"
    assert el9.inside("lb1", "sh", "-c", there).split() == ["/usr/bin/dnf", "/usr/bin/rpm"]
    assert "dnf on a Debian root file system" in el9.inside("lb1", "cat", "/etc/os-release")
    assert "1.el9" in el9.inside("lb1", "rpm", "-q", "haproxy", "keepalived")
    command = el9.inside("lb1", "sh", "-c", "tr '\\0' ' ' </proc/$(systemctl show -P MainPID haproxy)/cmdline")
    assert command.startswith("/usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/conf.d ")
    # Unlike Debian's, a package neither enables nor starts what it brings.
    el9.inside("lb1", "dnf", "-q", "-y", "install", "firewalld", "NetworkManager", "tcpdump", "iptables")
    for unit in ("firewalld", "NetworkManager"):
        states = el9.inside("lb1", "systemctl", "is-enabled", "--", unit, check=False)
        assert states + el9.inside("lb1", "systemctl", "is-active", unit, check=False) == "disabled\ninactive\n"
    assert el9.inside("lb1", "rpm", "-q", "nftables").startswith("nftables-")  # firewalld needs it
    assert el9.inside("lb1", "iptables", "--version").endswith("(nf_tables)\n")
    with el9.broken("lb1", "systemctl start firewalld", "dnf -q -y remove firewalld"):
        assert el9.inside("lb1", "firewall-cmd", "--state") == "running\n"


@pytest.mark.slow
def test_a_broken_file_beside_the_proxys_own_is_refused_as_the_unit_would(el9: Bastion) -> None:
    path = "/etc/haproxy/conf.d/extra.cfg"
    env = el9.environment(BALANCE="roundrobin")
    with el9.broken("lb1", f"echo nonsense >{path}", f"rm {path}"):
        ran = el9.exlb("push-config", env=env, status=1)
    assert f"parsing [{path}:1]" in ran.said
    el9.exlb("push-config", env=env)


@pytest.mark.slow
def test_upgrade_brings_the_newest_packages_by_dnf(el9: Bastion) -> None:
    ran = el9.exlb("install", "--upgrade", "--yes", "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    assert el9.inside("lb1", "rpm", "-q", "--qf", "%{RELEASE}\\n", "haproxy", "keepalived") == "2.el9\n2.el9\n"
    again = el9.exlb("install", "--upgrade", "--yes", "-o", "json")
    assert set(again.results.values()) == {"unchanged"}
