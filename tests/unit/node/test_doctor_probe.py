"""doctor.sh in front of probe.sh, run here by /bin/sh in a scratch root: what it asks of the node's own programs."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from exlb_fab import answers, ground
from exlb_fab.host import parse_arp_answers
from exlb_fab.node import program
from tests.unit.node.machine import PROBE, Machine

PLACES = {
    "firmware=/sys/class/dmi/id": "dmi",
    "dnf_caches='/var/cache/dnf /var/cache/libdnf5 /var/cache/yum'": "caches",
    "/etc/os-release": "etc/os-release",
}
# Every call is a line of $ROOT/log; what a program says is in $ROOT/said/NAME, where that is there.
FAKE = """#!/bin/sh
echo "${0##*/} $*" >>"$ROOT/log"
cat "$ROOT/said/${0##*/}" 2>/dev/null
exit 0
"""
IP = """#!/bin/sh
echo "ip $*" >>"$ROOT/log"
case "$*" in
'neigh show to '*)
    cat "$ROOT/said/neigh" 2>/dev/null
    if [ -e "$ROOT/said/neigh-later" ]; then mv "$ROOT/said/neigh-later" "$ROOT/said/neigh"; fi ;;
'-o addr show to '*) cat "$ROOT/said/addresses" 2>/dev/null ;;
'-o route get '*) cat "$ROOT/said/route" ;;
esac
exit 0
"""
# As `apt-cache policy` lists what it knows of.
SOURCE = "Package files:\n 500 http://deb.example/debian bookworm/main amd64 Packages\nPinned packages:\n"
OWNED = {ip_address("127.0.0.1"): ground.Owners(frozenset({"02:00:00:00:00:0c"}))}
ROCKY = 'ID="rocky"\nID_LIKE="rhel centos fedora"\n'


class Bare(Machine):
    """A machine with a bash and a find, and the programs that are put on it; `own` is where they are."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.own = root / "own"
        for folder in (self.own, root / "dmi", root / "caches", root / "said"):
            folder.mkdir()
        for name in ("bash", "find"):
            found = shutil.which(name)
            assert found
            (self.own / name).symlink_to(found)
        self.bring("ip", IP)

    def bring(self, name: str, text: str = FAKE) -> None:
        path = self.own / name
        path.write_text(text)
        path.chmod(0o755)

    def program(self, *names: str) -> str:
        own = program("doctor.sh")
        for old, new in PLACES.items():
            assert old in own, f"doctor.sh does not mention {old} any more: rewrite this test"
            head, equals, _ = old.rpartition("=")
            own = own.replace(old, f"{head}{equals}{self.root}/{new}")
        return own + super().program(*names).replace(f"PATH={self.bin}", f"PATH={self.own}:{self.bin}")

    def asked(self, question: str) -> answers.Answer:
        done = self.run(PROBE, stdin=f"{question}\n")
        assert (done.returncode, done.stderr) == (0, "")
        return answers.parse_answers(done.stdout)[question]

    @property
    def log(self) -> list[str]:
        return (self.root / "log").read_text().splitlines()


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path / "node")


def test_machine_is_what_the_firmware_says(bare: Bare) -> None:
    bare.put("dmi/sys_vendor", "Amazon EC2\n")
    bare.put("dmi/product_name", "t3.medium\n")
    assert ground.parse_machine(bare.asked("ground machine").text) == ground.Machine("Amazon EC2", "t3.medium")


def test_machine_without_firmware_says_nothing(bare: Bare) -> None:
    assert bare.asked("ground machine") == answers.Answer("", 0)


def test_debian_is_asked_by_apt_cache_and_no_list_is_fetched(bare: Bare) -> None:
    bare.bring("apt-cache")
    bare.put("said/apt-cache", f"{SOURCE}haproxy:\n  Candidate: 2.6.12-1\n")
    found = ground.parse_available(bare.asked("ground available haproxy keepalived").text)
    assert found == ground.Available({"haproxy": "2.6.12-1"}, listed=True)
    no_cache = "-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
    assert bare.log == [f"apt-cache {no_cache} policy", f"apt-cache {no_cache} policy haproxy keepalived"]


def test_node_that_has_fetched_no_list_says_so(bare: Bare) -> None:
    bare.bring("apt-cache")
    bare.put("said/apt-cache", "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\n")
    assert not ground.parse_available(bare.asked("ground available haproxy").text).listed


def test_red_hat_is_asked_by_dnf_from_its_cache_alone(bare: Bare) -> None:
    bare.put("etc/os-release", ROCKY)
    bare.bring("dnf")
    bare.put("said/dnf", "Name : haproxy\nVersion : 2.4.22\n")
    found = ground.parse_available(bare.asked("ground available haproxy keepalived").text)
    assert found == ground.Available({"haproxy": "2.4.22"}, listed=False)
    assert bare.log == ["dnf -C -q info haproxy keepalived"]


def test_lists_of_dnf_are_found_in_its_cache(bare: Bare) -> None:
    bare.put("etc/os-release", ROCKY)
    folder = bare.root / "caches/appstream-1234/repodata"
    folder.mkdir(parents=True)
    (folder / "repomd.xml").touch()
    assert ground.parse_available(bare.asked("ground available haproxy").text).listed


def test_owner_is_waited_for_until_the_kernel_knows(bare: Bare) -> None:
    bare.put("said/neigh", "127.0.0.1 dev lo INCOMPLETE \n")
    bare.put("said/neigh-later", "127.0.0.1 dev lo lladdr 02:00:00:00:00:0c REACHABLE \n")
    assert ground.parse_owners(bare.asked("ground owners lo 127.0.0.1").text) == OWNED
    asked = ["ip neigh flush to 127.0.0.1", "ip neigh show to 127.0.0.1", "ip neigh show to 127.0.0.1"]
    assert [call for call in bare.log if call.startswith("ip ")] == asked


def test_cache_of_the_kernel_is_left_alone_where_a_ping_is_answered(bare: Bare) -> None:
    bare.bring("ping")
    bare.put("said/neigh", "127.0.0.1 dev lo lladdr 02:00:00:00:00:0c STALE\n")
    found = ground.parse_owners(bare.asked("ground owners lo 127.0.0.1").text)
    assert found == {ip_address("127.0.0.1"): ground.Owners(frozenset({"02:00:00:00:00:0c"}), ping=True)}
    assert not [call for call in bare.log if "flush" in call]


@pytest.mark.parametrize(
    "said",
    [
        "ARPING 127.0.0.1 from 127.0.0.2 eth0\nUnicast reply from 127.0.0.1 [02:00:00:00:00:0C]  0.7ms\n",
        "ARPING 127.0.0.1\n42 bytes from 02:00:00:00:00:0c (127.0.0.1): index=0 time=8.1 usec\n",
    ],
    ids=["iputils", "Habets"],
)
def test_arping_of_both_kinds_is_asked_where_it_is_there(bare: Bare, said: str) -> None:
    bare.bring("arping")
    bare.put("said/arping", said)
    assert ground.parse_owners(bare.asked("ground owners eth7 127.0.0.1").text) == OWNED
    assert "arping -c 2 -w 2 -I eth7 127.0.0.1" in bare.log


def test_arping_of_both_kinds_is_asked_by_verify_as_well(bare: Bare) -> None:
    assert bare.asked("arp-answers 198.51.100.100 eth7") == answers.Answer("", 127)
    bare.bring("arping")
    replies = "reply from 198.51.100.100 [02:00:00:00:00:0C]\nreply from 198.51.100.100 [02:00:00:00:00:99]\n"
    bare.put("said/arping", replies)
    found = parse_arp_answers(bare.asked("arp-answers 198.51.100.100 eth7").text)
    assert found == {"02:00:00:00:00:0c", "02:00:00:00:00:99"}
    assert "arping -c 2 -w 2 -I eth7 198.51.100.100" in bare.log


@pytest.mark.parametrize("question", ["ground owners eth3 127.0.0.1", "arp-answers 127.0.0.1 eth3"])
def test_node_that_has_an_address_asks_nobody_for_it(bare: Bare, question: str) -> None:
    bare.bring("arping")
    bare.put("said/addresses", "3: eth3    inet 127.0.0.1/32 scope global eth3\\       valid_lft forever\n")
    bare.asked(question)
    assert not [line for line in bare.log if line.startswith("arping")]


def test_interface_that_is_not_named_is_the_one_that_leads_there_without_a_router(bare: Bare) -> None:
    bare.bring("arping")
    bare.put("said/route", "127.0.0.1 dev eth3 src 127.0.0.9 uid 0 \\    cache \n")
    bare.asked("ground owners - 127.0.0.1")
    assert "arping -c 2 -w 2 -I eth3 127.0.0.1" in bare.log
    (bare.root / "log").unlink()
    bare.put("said/route", "127.0.0.1 via 127.0.0.254 dev eth3 src 127.0.0.9 uid 0 \\    cache \n")
    bare.asked("ground owners - 127.0.0.1")
    assert not [line for line in bare.log if line.startswith("arping")]


def test_interface_of_a_vip_that_the_node_has_itself_is_the_one_that_it_is_on(bare: Bare) -> None:
    bare.bring("tcpdump")
    bare.put("said/route", "local 127.0.0.1 dev lo src 127.0.0.1 uid 0 \\    cache <local> \n")
    bare.put("said/addresses", "3: eth3    inet 127.0.0.1/32 scope global eth3\\       valid_lft forever\n")
    bare.asked("ground adverts 127.0.0.1 - 1")
    assert "ip -o addr show to 127.0.0.1" in bare.log
    assert any("-i eth3 " in line for line in bare.log)


def test_nobody_listens_without_tcpdump(bare: Bare) -> None:
    assert bare.asked("ground adverts 127.0.0.1 eth0 4") == answers.Answer(ground.NO_TCPDUMP, 127)


def test_adverts_are_listened_for_without_their_passwords(bare: Bare) -> None:
    bare.bring("tcpdump")
    line = "10:00:00.1 IP 127.0.0.1 > 224.0.0.18: VRRPv2, Advertisement, vrid 68, prio 120, intvl 1s, length 20"
    bare.put("said/tcpdump", f"{line}\n")
    assert bare.asked("ground adverts 127.0.0.1 eth0 4") == answers.Answer(line, 0)
    (call,) = bare.log
    assert "-i eth0" in call
    assert "-v" not in call


def test_end_of_the_time_to_listen_is_no_failure(bare: Bare) -> None:
    bare.bring("tcpdump", FAKE.replace("exit 0", "exit 124"))
    assert bare.asked("ground adverts 127.0.0.1 eth0 4") == answers.Answer("", 0)
    bare.bring("tcpdump", FAKE.replace("exit 0", "exit 1"))
    assert bare.asked("ground adverts 127.0.0.1 eth0 4") == answers.Answer("tcpdump ended with status 1", 1)


@pytest.fixture
def port() -> Iterator[int]:
    """A port of the loopback that takes connections."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_contacts_are_made_by_a_real_bash(bare: Bare, port: int) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        closed = server.getsockname()[1]
    places = (f"127.0.0.1:{port}", f"127.0.0.1:{closed}")
    found = ground.parse_contacts(bare.asked(f"ground contacts {' '.join(places)}").text)
    assert found[places[0]] == ground.Contact("taken")
    assert found[places[1]] == ground.Contact("refused", "Connection refused")


def test_contacts_are_made_over_ipv6_too(bare: Bare) -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        words = f"this host has no IPv6: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)
    with closing(server):
        place = f"[::1]:{server.getsockname()[1]}"
        found = ground.parse_contacts(bare.asked(f"ground contacts {place}").text)
    assert found == {place: ground.Contact("taken")}


def test_without_bash_nobody_knows(bare: Bare, port: int) -> None:
    (bare.own / "bash").unlink()
    found = ground.parse_contacts(bare.asked(f"ground contacts 127.0.0.1:{port}").text)
    assert found[f"127.0.0.1:{port}"].reception == "unknown"


def test_nothing_of_the_node_is_written(bare: Bare, port: int) -> None:
    for name in ("apt-cache", "arping", "tcpdump"):
        bare.bring(name)
    bare.put("log")

    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in bare.root.rglob("*") if path.is_file() and path.name != "log"}

    before = state()
    questions = [
        "ground machine",
        "ground available haproxy",
        "ground owners lo 127.0.0.1",
        "ground adverts 127.0.0.1 lo 1",
        f"ground contacts 127.0.0.1:{port}",
    ]
    done = bare.run(PROBE, stdin="".join(f"{each}\n" for each in questions))
    assert {each.status for each in answers.parse_answers(done.stdout).values()} == {0}
    assert state() == before


def test_question_that_there_is_not_is_refused(bare: Bare) -> None:
    assert bare.asked("ground truth") == answers.Answer("unknown question truth", 64)
