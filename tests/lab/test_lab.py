"""The lab itself: that its machines are what they claim to be, and that nothing of it is ever left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from exlb_fab.errors import LabError
from exlb_fab.lab import Lab, cgroups, down, image, labs
from exlb_fab.lab.layout import LabLayout, lab_layout
from exlb_fab.lab.waiting import until

pytestmark = pytest.mark.lab

# Exits with a line for the answer: the status and body that a client on the bastion sees, or what went wrong.
CLIENT = """
import http.client, ssl, sys
address, path, certificate = sys.argv[1:]
context = ssl.create_default_context(cafile=certificate)
try:
    connection = http.client.HTTPSConnection(address, 6443, timeout=5, context=context)
    connection.request("GET", path)
    response = connection.getresponse()
    print(response.status, response.read().decode().replace("\\n", " "))
except OSError as problem:
    print(type(problem).__name__)
"""


@pytest.fixture(scope="module")
def machines(host: None) -> Iterator[Lab]:
    """Two nodes, shared by the tests that leave them as they found them."""
    try:
        down("t-lab")
        yield Lab.up("t-lab", nodes=2)
    finally:
        down("t-lab")


@pytest.fixture
def name(host: None, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a lab of the test's own, which is removed whatever happens."""
    try:
        down("t-lab-own")
        yield "t-lab-own"
    finally:
        down("t-lab-own")


def inside(lab: Lab, node: str | int, *words: str) -> str:
    """Run words in a node, which must succeed, and return what they print."""
    done = lab.shell_in(node, words, timeout=60)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout.decode().strip()


def ssh(lab: Lab, node: str | int, command: str, user: str = "root", text: str = "") -> tuple[int, str]:
    """Run a command over SSH and return its exit status and output."""
    done = subprocess.run(
        lab.ssh_argv(node, [command], user=user), input=text, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def asked(lab: Lab, node: int, path: str = "/readyz") -> str:
    """Return what a client on the bastion gets from a node's stand-in."""
    certificate = lab.directory / "nodes" / lab.node(node).name / "apiserver.crt"
    words = [sys.executable, "-c", CLIENT, lab.node(node).address, path, str(certificate)]
    return lab.run(words, capture=True, timeout=20).stdout.decode().strip()


def boot_ids(lab: Lab) -> list[str]:
    return [inside(lab, node.name, "cat", "/proc/sys/kernel/random/boot_id") for node in lab.nodes]


def state(lab: Lab, node: int) -> tuple[str, bool, bool, str]:
    status = lab.status().nodes[node - 1]
    return status.state, status.partitioned, status.ssh, status.apiserver


def processes(text: str) -> set[str]:
    """Return the command lines of living processes which have the text in them, or in their control group."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                # A zombie has no command line any more; it is its parent's to bury.
                if command and (text in command or text in (process / "cgroup").read_text()):
                    found.add(command)
    return found


def traces(name: str) -> dict[str, set[str]]:
    """Return all that this host has of a lab, by kind."""
    lab = lab_layout(name)
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.splitlines()
    groups = [hierarchy / lab.cgroup for hierarchy in cgroups.hierarchies()]
    return {
        "mounts": {line for line in Path("/proc/mounts").read_text().splitlines() if name in line},
        "namespaces": {line for line in namespaces if name in line},
        "processes": processes(name),
        "control groups": {str(group) for group in groups if group.exists()},
        "files": {str(path) for path in (lab.directory, lab.namespace_file) if path.exists()},
    }


def nothing(name: str) -> bool:
    return not any(traces(name).values())


def test_up_again_changes_nothing(machines: Lab) -> None:
    before = boot_ids(machines), machines.environment_file.read_text(), (machines.directory / "known_hosts").read_text()
    again = Lab.up("t-lab", nodes=2)
    assert (
        boot_ids(again),
        again.environment_file.read_text(),
        (again.directory / "known_hosts").read_text(),
    ) == before
    assert Lab.open("t-lab").nodes == again.nodes == machines.nodes
    assert "t-lab" in labs()
    assert all(node.normal for node in machines.status().nodes)


def test_a_lab_does_not_change_its_size_in_silence(machines: Lab) -> None:
    with pytest.raises(LabError, match="2 nodes of bookworm, not 3") as refusal:
        Lab.up("t-lab", nodes=3)
    assert refusal.value.hint == "exlb lab down --name t-lab"
    with pytest.raises(LabError, match="2 nodes of bookworm, not 2 nodes of bookworm, trixie"):
        Lab.up("t-lab", releases=["bookworm", "trixie"], nodes=2)
    with pytest.raises(LabError, match="no node lb9") as unknown:
        machines.node("lb9")
    assert unknown.value.hint == "its nodes: lb1, lb2"


def test_nodes_have_no_python_and_nothing_that_exlb_installs(machines: Lab) -> None:
    def found(node: str, *programs: str) -> list[str]:
        look = 'for program; do command -v "$program" || true; done'
        return [Path(line).name for line in inside(machines, node, "sh", "-c", look, "sh", *programs).splitlines()]

    there = ("ip", "ss", "ping", "ps", "systemctl", "sshd", "sudo", "apt-get", "bash")
    for node in machines.nodes:
        assert found(node.name, "python", "python3", "haproxy", "keepalived", "killall", "curl", "socat") == []
        assert inside(machines, node.name, "find", "/usr", "-name", "python3*", "-path", "*bin*") == ""
        assert found(node.name, *there) == list(there)


def test_nodes_are_machines_of_their_own(machines: Lab) -> None:
    for node in machines.nodes:
        assert inside(machines, node.name, "systemctl", "is-system-running", "--wait") == "running"
        assert inside(machines, node.name, "hostname") == node.name
        assert f"{node.address}/24" in inside(machines, node.name, "ip", "-o", "addr", "show", "host0")
        for other in machines.nodes:
            assert other.address in inside(machines, node.name, "getent", "hosts", other.name)
    for path in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub", "/sys/class/net/host0/address"):
        assert inside(machines, 1, "cat", path) != inside(machines, 2, "cat", path)


def test_nodes_reach_each_other_and_nothing_else(machines: Lab) -> None:
    assert inside(machines, 1, "ip", "route") == "198.51.100.0/24 dev host0 proto kernel scope link src 198.51.100.11"
    assert inside(machines, 1, "ip", "-6", "route", "show", "root", "2000::/3").split()[:3] == [
        "2001:db8:0:51::/64", "dev", "host0",
    ]  # fmt: skip
    assert inside(machines, 1, "ip", "-6", "route", "show", "default") == ""
    links = json.loads(machines.run(["ip", "-j", "link"], capture=True).stdout)
    assert sorted(link["ifname"] for link in links if "master" not in link) == ["br-cut", "br-lab", "lo"]
    inside(machines, 1, "ping", "-c1", "-W2", "lb2")
    for address in (machines.nodes[1].address6, "2001:db8:0:51::1"):
        inside(machines, 1, "ping", "-c1", "-W2", address)


def test_ipv6_addresses_are_of_use_at_once_and_nobody_advertises_others(machines: Lab) -> None:
    for node in machines.nodes:
        found = inside(machines, node.name, "ip", "-o", "-6", "addr", "show", "dev", "host0", "scope", "global")
        assert f" {node.address6}/64 scope global nodad" in found
        assert len(found.splitlines()) == 1
        assert inside(machines, node.name, "cat", "/proc/sys/net/ipv6/conf/host0/accept_ra") == "0"
    bastion = machines.run(["cat", "/proc/sys/net/ipv6/conf/br-lab/accept_ra"], capture=True).stdout
    assert bastion == b"0\n"


def test_an_address_that_keepalived_adds_survives_networkd(machines: Lab) -> None:
    inside(machines, 1, "ip", "address", "add", f"{machines.vip}/32", "dev", "host0")
    inside(machines, 1, "systemctl", "restart", "systemd-networkd")
    inside(machines, 1, "networkctl", "reconfigure", "host0")
    inside(machines, 1, "/lib/systemd/systemd-networkd-wait-online", "--interface=host0", "--timeout=10")
    assert f" {machines.vip}/32 " in inside(machines, 1, "ip", "-o", "addr", "show", "host0")
    inside(machines, 1, "ip", "address", "delete", f"{machines.vip}/32", "dev", "host0")


def test_ssh_refuses_a_node_with_the_key_of_another(machines: Lab) -> None:
    assert ssh(machines, 1, "hostname") == (0, "lb1")
    known_hosts = machines.directory / "known_hosts"
    good = known_hosts.read_text()
    first, second = (line.split() for line in good.splitlines())
    try:
        known_hosts.write_text(f"{first[0]} {' '.join(second[1:])}\n")
        status, said = ssh(machines, 1, "hostname")
        assert status == 255
        assert "Host key verification failed" in said
        status, said = ssh(machines, 2, "hostname")  # not known at all any more
        assert status == 255
        assert "Host key verification failed" in said
    finally:
        known_hosts.write_text(good)


def test_two_users_have_sudo_one_without_and_one_with_a_password(machines: Lab) -> None:
    assert ssh(machines, 1, "sudo -n id -un; echo $SHELL", user="operator") == (0, "root\n/bin/bash")
    assert ssh(machines, 1, "sudo -n id -un", user="clerk") == (1, "sudo: a password is required")
    secret = machines.directory / "clerk-password"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert ssh(machines, 1, "sudo -S -p '' id -un", user="clerk", text=secret.read_text()) == (0, "root")
    assert ssh(machines, 1, "sudo -S -p '' id -un", user="clerk", text="wrong\n")[0] == 1


def test_secrets_are_for_their_owner_alone(machines: Lab) -> None:
    assert machines.directory.stat().st_mode & 0o777 == 0o700
    for file in ("environment.sh", "id_ed25519", "clerk-password", "nodes/lb1/apiserver.key"):
        assert (machines.directory / file).stat().st_mode & 0o777 == 0o600


def test_commands_on_the_bastion_know_the_lab_and_keep_their_status(machines: Lab) -> None:
    done = machines.run(
        ["sh", "-c", 'echo "$EXLB_ENV $MORE"; cat; exit 7'], env={"MORE": "yes"}, capture=True, input=b"in"
    )
    assert done.returncode == 7
    assert done.stdout.decode() == f"{machines.environment_file} yes\nin"
    with machines.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.communicate(b"through", timeout=10)[0] == b"through"


@pytest.mark.parametrize(
    ("mode", "readyz", "hostname"),
    [
        ("unhealthy", "500", "200 lb2"),
        ("unauthorized", "401", "401"),
        ("hung", "TimeoutError", "TimeoutError"),
        ("off", "ConnectionRefusedError", "ConnectionRefusedError"),
        ("ok", "200 ok", "200 lb2"),
    ],
)
def test_an_apiserver_fails_as_told_and_recovers(machines: Lab, mode: str, readyz: str, hostname: str) -> None:
    machines.apiserver(2, mode)
    assert machines.status().nodes[1].apiserver == mode
    assert asked(machines, 2).startswith(readyz)
    assert asked(machines, 2, "/hostname").startswith(hostname)
    assert asked(machines, 1) == "200 ok"
    machines.apiserver(2, "ok")
    assert asked(machines, 2) == "200 ok"


def test_a_mode_that_there_is_not_is_refused(machines: Lab) -> None:
    with pytest.raises(LabError, match="no apiserver mode 'sick'") as refusal:
        machines.apiserver(1, "sick")
    assert refusal.value.hint == "one of: ok, unhealthy, hung, unauthorized, foreign, off"


def test_a_backend_answers_until_it_or_its_node_ends(machines: Lab) -> None:
    def fetched() -> dict[str, str | None] | None:
        request = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())"
        url = f"http://{machines.nodes[1].address}:30080/"
        done = machines.run([sys.executable, "-c", request, url], capture=True, timeout=20)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else None

    assert fetched() is None
    for _ in range(2):
        machines.backend(2, 30080)
    machines.backend(2, 30443)
    assert fetched() == {"node": "lb2", "peer": machines.gateway, "client": None}
    with pytest.raises(LabError, match=r"no backend at port 6443: .*Address already in use"):
        machines.backend(2, 6443)
    for _ in range(2):
        machines.end_backend(2, 30080)
    assert fetched() is None
    machines.backend(2, 30080)
    machines.cut(2)
    machines.boot(2)
    assert fetched() is None
    assert asked(machines, 2) == "200 ok"


def test_a_partitioned_node_is_alone_with_its_link_up(machines: Lab) -> None:
    for _ in range(2):
        machines.partition("lb2")
    assert state(machines, 2) == ("running", True, False, "ok")
    assert asked(machines, 2) in ("OSError", "TimeoutError")
    assert ssh(machines, 1, "hostname") == (0, "lb1")
    assert inside(machines, 2, "cat", "/sys/class/net/host0/carrier") == "1"
    assert machines.shell_in(1, ["ping", "-c1", "-W1", "lb2"]).returncode == 1
    machines.partition("lb1")
    assert machines.shell_in(1, ["ping", "-c1", "-W1", "lb2"]).returncode == 1, "they meet behind the cut"
    for node in (1, 2, 2):
        machines.heal(node)
    assert state(machines, 2) == ("running", False, True, "ok")
    # A question for lb2's address that was asked before it was back ends in "unreachable".
    assert until(lambda: machines.shell_in(1, ["ping", "-c1", "-W1", "lb2"]).returncode == 0, limit_s=10)


@pytest.mark.parametrize("how", ["cut", "poweroff"])
def test_a_machine_that_was_off_comes_back_as_itself(machines: Lab, how: str) -> None:
    off: Callable[[int], None] = getattr(machines, how)
    identity = inside(machines, 2, "cat", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub")
    inside(machines, 2, "sh", "-c", "echo $0 >/root/written && sync /root/written", how)
    boot_id = boot_ids(machines)[1]
    machines.partition(2)
    machines.apiserver(2, "unhealthy")

    for _ in range(2):
        off(2)
    assert state(machines, 2) == ("off", False, False, "off")
    assert asked(machines, 2) in ("OSError", "TimeoutError")
    with pytest.raises(LabError, match="lb2 is off"):
        machines.shell_in(2, ["true"])
    with pytest.raises(LabError, match="lb2 is off") as refusal:
        machines.partition(2)
    assert refusal.value.hint == "exlb lab boot lb2 --name t-lab"

    machines.boot(2)
    assert state(machines, 2) == ("running", False, True, "ok")
    assert boot_ids(machines)[1] != boot_id
    assert inside(machines, 2, "cat", "/root/written") == how
    assert inside(machines, 2, "cat", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub") == identity
    assert state(machines, 1) == ("running", False, True, "ok")


def test_a_machine_goes_off_while_a_program_that_was_run_in_it_is_stopped(machines: Lab) -> None:
    with machines.popen_in(2, ["sh", "-c", "kill -STOP $$"]) as entered:
        stat = Path(f"/proc/{entered.pid}/stat")
        assert until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", limit_s=10)
        machines.poweroff(2)
    machines.boot(2)
    assert state(machines, 2) == ("running", False, True, "ok")


def test_a_power_cut_lets_nobody_say_goodbye(machines: Lab) -> None:
    trap = "trap 'echo goodbye >>/root/goodbye; exit' TERM INT HUP; touch /root/goodbye; while :; do sleep 0.1; done"
    inside(machines, 2, "systemd-run", "--unit=polite", "--collect", "sh", "-c", trap)
    assert until(lambda: machines.shell_in(2, ["test", "-e", "/root/goodbye"]).returncode == 0, limit_s=10)
    machines.cut(2)
    machines.boot(2)
    assert inside(machines, 2, "cat", "/root/goodbye") == ""


def test_packages_come_from_the_offline_repository(machines: Lab) -> None:
    assert inside(machines, 1, "cat", "/etc/apt/sources.list") == "deb [trusted=yes] file:/srv/repo ./"
    assert machines.shell_in(1, ["touch", "/srv/repo/x"]).returncode != 0
    inside(machines, 1, "apt-get", "-q", "update")
    install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "install"]
    inside(machines, 1, *install, "haproxy", "keepalived", "psmisc", "curl", "socat")
    assert inside(machines, 1, "systemctl", "is-active", "haproxy") == "active"
    assert inside(machines, 1, "curl", "-sk", "https://lb1:6443/readyz") == "ok"
    # What somebody may have on a node beside that can be had, too.
    others = ("firewalld", "ufw", "nftables", "iptables", "network-manager", "tcpdump", "fish", "tcsh", "zsh")
    for package in others:
        assert f"Inst {package} " in inside(machines, 1, "apt-get", "-q", "-s", "install", package)
    # A second node has not got them: what a node writes is its own.
    assert machines.shell_in(2, ["sh", "-c", "command -v haproxy"]).returncode != 0


def test_two_labs_side_by_side_do_not_notice_each_other(machines: Lab, name: str) -> None:
    other = Lab.up(name, nodes=1)
    assert other.nodes[0] == machines.nodes[0]
    assert inside(other, 1, "cat", "/etc/machine-id") != inside(machines, 1, "cat", "/etc/machine-id")
    other.apiserver(1, "unhealthy")
    assert asked(other, 1).startswith("500")
    assert asked(machines, 1) == "200 ok"
    before = boot_ids(machines)
    other.down()
    assert nothing(name)
    assert boot_ids(machines) == before
    assert all(node.normal for node in machines.status().nodes)


def test_down_leaves_nothing_and_is_content_with_nothing(name: str) -> None:
    lab = Lab.up(name, nodes=1)
    lab.partition(1)
    # Otherwise the emptiness below would prove nothing. (The disk of a node is mounted in its own namespace.)
    assert all(traces(name).values())
    assert any("nspawn" in process for process in processes(name))
    assert any("exlb_fab.lab.apiserver" in process for process in processes(name))
    for _ in range(2):
        lab.down()
        assert traces(name) == {kind: set() for kind in traces(name)}
    assert name not in labs()
    with pytest.raises(LabError, match="no lab"):
        Lab.open(name)
    with pytest.raises(LabError, match=r"no lab .* any more"):
        lab.cut(1)
    with pytest.raises(LabError, match="has not been up"):
        lab.run(["true"])
    assert nothing(name)


def test_two_operators_get_the_same_lab(name: str) -> None:
    with subprocess.Popen(_up_words(name)) as one, subprocess.Popen(_up_words(name)) as other:
        assert until(lambda: MOMENTS["has a machine"](lab_layout(name)), limit_s=120)
        (first,) = boot_ids(Lab.open(name))
        assert (one.wait(60), other.wait(60)) == (0, 0)
    assert boot_ids(Lab.open(name)) == [first]


def test_a_lab_below_another_home_may_have_the_same_name(
    machines: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = boot_ids(machines)
    monkeypatch.setenv("EXLB_LAB_HOME", str(tmp_path / "a home"))
    try:
        other = Lab.up(machines.name, nodes=1)
        assert labs() == (machines.name,)
        assert ssh(other, 1, "hostname") == (0, "lb1")
    finally:
        down(machines.name)
    assert list((tmp_path / "a home").iterdir()) == []
    monkeypatch.delenv("EXLB_LAB_HOME")
    assert boot_ids(machines) == before


MOMENTS: dict[str, Callable[[LabLayout], bool]] = {
    "described": lambda lab: lab.description.exists(),
    "has a namespace": lambda lab: lab.namespace_file.exists(),
    "has its keys": lambda lab: lab.key.exists(),
    "has a disk": lambda lab: any(lab.disks.glob("*/upper")),
    "starts a machine": lambda lab: bool(cgroups.processes(lab.cgroup)),
    "has a machine": lambda lab: any("systemd" in process for process in processes(f"{lab.name}/lb1/payload")),
    "has a stand-in": lambda lab: bool(cgroups.processes(f"{lab.cgroup}/lb1.apiserver")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_up_killed_half_way_is_cleaned_up_by_down(name: str, moment: str) -> None:
    with subprocess.Popen(_up_words(name)) as killed:
        assert until(lambda: MOMENTS[moment](lab_layout(name)), limit_s=120, every_s=0.001)
        killed.send_signal(signal.SIGKILL)
    down(name)
    # A client of its own, which is no part of the lab, finds out by itself that there is nobody any more.
    assert until(lambda: not any(traces(name).values()), limit_s=20), traces(name)


def test_an_up_killed_half_way_is_completed_by_up(name: str) -> None:
    with subprocess.Popen(_up_words(name)) as killed:
        assert until(lambda: MOMENTS["starts a machine"](lab_layout(name)), limit_s=120, every_s=0.001)
        killed.send_signal(signal.SIGKILL)
    assert all(node.normal for node in Lab.up(name, nodes=1).status().nodes)


def test_a_down_killed_half_way_leaves_no_half_lab(name: str) -> None:
    lab = Lab.up(name, nodes=1)
    # What `down` does first, and all that it may have got to.
    lab_layout(name).description.unlink()
    (lab.directory / "disks/lb1/upper/etc/ssh/ssh_host_ed25519_key").unlink()
    with pytest.raises(LabError, match="no lab"):
        Lab.open(name)
    assert name in labs()
    assert ssh(Lab.up(name, nodes=1), 1, "hostname") == (0, "lb1")


def _up_words(name: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from exlb_fab.lab import Lab; Lab.up(sys.argv[1], nodes=1)", name]


def test_a_build_killed_half_way_leaves_files_alone_and_the_next_removes_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXLB_LAB_CACHE", str(tmp_path))

    def killed_build() -> Path:
        before = set(tmp_path.glob(".building-*"))

        def begun() -> bool:
            return any(root.parents[1] not in before for root in tmp_path.glob(".building-*/root/*"))

        with subprocess.Popen(_up_words(name)) as killed:
            assert until(begun, limit_s=120)
            killed.send_signal(signal.SIGKILL)
        assert until(lambda: not processes(str(tmp_path)), limit_s=10)
        assert str(tmp_path) not in Path("/proc/mounts").read_text()
        assert not image.image("bookworm").present()
        assert name not in labs()
        (unfinished,) = tmp_path.glob(".building-*")
        return unfinished

    assert killed_build() != killed_build()
