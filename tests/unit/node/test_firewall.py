"""firewall.sh and selinux.sh, run here by /bin/sh in a scratch root; nft is the real one, in a namespace of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from exlb_fab import node as programs
from tests.unit.node.machine import OWN_PATH, require_nft

# firewalld keeps its rules in two files, a line each; ufw keeps what `show added` prints, and may not know VRRP;
# iptables and semanage only say what they were asked.
FAKES = {
    "firewall-cmd": """
        echo "firewall-cmd $*" >>"$ROOT/log"
        kept=$ROOT/runtime
        for word in "$@"; do
            case $word in
            --permanent) kept=$ROOT/permanent ;;
            --zone=*) zone=${word#--zone=} ;;
            --state) [ ! -e "$ROOT/stopped" ]; exit ;;
            --add-*) verb=add what=${word#--add-} ;;
            --remove-*) verb=remove what=${word#--remove-} ;;
            --query-*) verb=query what=${word#--query-} ;;
            esac
        done
        if [ -e "$ROOT/stopped" ]; then echo 'FirewallD is not running'; exit 252; fi
        if [ -e "$ROOT/broken" ]; then echo 'Error: COMMAND_FAILED'; exit 13; fi
        case $verb in
        add) grep -q -x -F -e "$zone $what" "$kept" || echo "$zone $what" >>"$kept" ;;
        remove) grep -v -x -F -e "$zone $what" "$kept" >"$kept.new"; mv "$kept.new" "$kept" ;;
        query) grep -q -x -F -e "$zone $what" "$kept" ;;
        esac
    """,
    "firewall-offline-cmd": 'echo "firewall-offline-cmd $*" >>"$ROOT/log"',
    "ufw": """
        echo "ufw $*" >>"$ROOT/log"
        case $* in
        'show added') cat "$ROOT/ufw" ;;
        *vrrp*) if [ -e "$ROOT/old-ufw" ]; then echo "ERROR: Unsupported protocol 'vrrp'"; exit 1; fi ;;
        esac
    """,
    "iptables": """
        echo "iptables $*" >>"$ROOT/log"
        shift
        verb=$1; shift
        case $verb in
        -I) echo "$*" >>"$ROOT/iptables" ;;
        -C) grep -q -x -F -e "$*" "$ROOT/iptables" ;;
        -D) grep -q -x -F -e "$*" "$ROOT/iptables" && grep -v -x -F -e "$*" "$ROOT/iptables" >"$ROOT/iptables.new"
            if [ $? -le 1 ]; then mv "$ROOT/iptables.new" "$ROOT/iptables"; fi ;;
        esac
    """,
    "setsebool": 'echo "setsebool $*" >>"$ROOT/log"',
    "semanage": """
        echo "semanage $*" >>"$ROOT/log"
        case $2 in
        -a) [ ! -e "$ROOT/labelled" ] ;;
        -l) cat "$ROOT/customs" ;;
        -d) if ! grep -q "$7" "$ROOT/customs"; then echo "ValueError: Port tcp/$7 is not defined"; exit 1; fi ;;
        esac
    """,
}
BEFORE_RULES = "*nat\n:POSTROUTING - [0:0]\nCOMMIT\n*filter\n:ufw-before-input - [0:0]\nCOMMIT\n"
RICH = 'rich-rule=rule family="{}" {} address="{}" protocol value="112" accept'


class Node:
    """A scratch root with firewalls in it."""

    def __init__(self, root: Path, path: str = "") -> None:
        self.root = root
        self._bin = root / "bin"
        self._path = path or f"{self._bin}:/usr/sbin:/usr/bin:/sbin:/bin"
        for folder in ("bin", "etc", "run"):
            (root / folder).mkdir()
        for name, text in FAKES.items():
            (self._bin / name).write_text(f"#!/bin/sh\n{text}")
            (self._bin / name).chmod(0o755)
        for name in ("log", "runtime", "permanent", "ufw", "iptables", "customs"):
            (root / name).touch()
        (root / "etc/before.rules").write_text(BEFORE_RULES)
        (root / "run/holder").write_text("token=1\nwho=eva\nfrom=bastion\nwhat=push-config\n")

    def run(self, program: str, *directives: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        text = program
        for old, new in {
            OWN_PATH: f"PATH={self._path}",
            "/var/lib/exlb": f"{self.root}/state",
            "/run/exlb": f"{self.root}/run",
            "/etc/ufw": f"{self.root}/etc",
        }.items():
            text = text.replace(old, new)
        return subprocess.run(
            [*prefix, "/bin/sh", "-c", text, "sh", *directives],
            capture_output=True,
            text=True,
            env={"ROOT": str(self.root)},
            timeout=60,
            check=False,
        )

    def firewall(self, *directives: str) -> None:
        done = self.run(programs.firewall(), *directives)
        assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)

    def text(self, name: str) -> str:
        return (self.root / name).read_text()

    @property
    def opened(self) -> list[str]:
        return self.text("state/firewall").splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_firewalld_is_opened_now_and_for_good_without_a_reload(node: Node) -> None:
    node.firewall("open firewalld public tcp 8443", "open firewalld public vrrp from 198.51.100.12")
    rich = "public " + RICH.format("ipv4", "source", "198.51.100.12")
    assert node.text("runtime") == node.text("permanent") == f"public port=8443/tcp\n{rich}\n"
    assert node.opened == ["firewalld public tcp 8443", "firewalld public vrrp from 198.51.100.12"]
    assert "reload" not in node.text("log")


def test_group_of_ipv6_is_opened_by_its_destination(node: Node) -> None:
    node.firewall("open firewalld public vrrp to ff02::12")
    assert node.text("runtime") == "public " + RICH.format("ipv6", "destination", "ff02::12") + "\n"


def test_second_time_changes_nothing(node: Node) -> None:
    node.firewall("open firewalld public tcp 8443")
    before = (node.text("runtime"), node.text("permanent"), node.opened)
    node.firewall("open firewalld public tcp 8443")
    assert (node.text("runtime"), node.text("permanent"), node.opened) == before


def test_what_exlb_has_opened_is_closed_and_forgotten(node: Node) -> None:
    node.firewall("open firewalld public tcp 8443", "open firewalld public tcp 9443")
    node.firewall("close firewalld public tcp 8443")
    assert node.text("runtime") == node.text("permanent") == "public port=9443/tcp\n"
    assert node.opened == ["firewalld public tcp 9443"]


def test_what_was_open_before_exlb_is_never_closed(node: Node) -> None:
    (node.root / "permanent").write_text("public port=8443/tcp\n")
    node.firewall("open firewalld public tcp 8443")
    assert node.text("runtime") == "public port=8443/tcp\n"
    assert not (node.root / "state/firewall").exists()
    node.firewall("close firewalld public tcp 8443")
    assert node.text("permanent") == "public port=8443/tcp\n"


def test_firewalld_that_does_not_run_is_closed_in_its_files(node: Node) -> None:
    node.firewall("open firewalld public tcp 8443")
    (node.root / "stopped").touch()
    node.firewall("close firewalld public tcp 8443")
    assert "firewall-offline-cmd --zone=public --remove-port=8443/tcp" in node.text("log")
    assert node.opened == []


def test_failure_is_told_and_what_may_be_open_is_remembered(node: Node) -> None:
    (node.root / "broken").touch()
    done = node.run(programs.firewall(), "open firewalld public tcp 8443", "open ufw - tcp 8443")
    assert done.returncode == 1
    assert done.stdout == "open firewalld public tcp 8443: Error: COMMAND_FAILED\n"
    assert node.opened == ["firewalld public tcp 8443"]
    assert "ufw" not in node.text("log")


def test_opening_that_was_killed_half_way_is_still_closed_so_that_the_next_push_opens_it(node: Node) -> None:
    fake = node.root / "bin/firewall-cmd"
    dies = '\nstatus=$?; case $* in *--add-*) kill -9 "$PPID" ;; esac; exit "$status"\n'
    fake.write_text(fake.read_text() + dies)
    assert node.run(programs.firewall(), "open firewalld public tcp 8443").returncode != 0
    assert (node.text("runtime"), node.text("permanent")) == ("", "public port=8443/tcp\n")
    assert node.opened == ["firewalld public tcp 8443"]


def test_every_deed_is_a_line_of_the_journal(node: Node) -> None:
    node.firewall("open ufw - tcp 8443")
    (line,) = node.text("state/journal").splitlines()
    assert line.partition(" ")[2] == "firewall eva bastion push-config: open ufw - tcp 8443"


def test_ufw_gets_its_rule_in_front_and_marked(node: Node) -> None:
    node.firewall("open ufw - tcp 8443", "open ufw - vrrp from 198.51.100.12", "open ufw - vrrp to 224.0.0.18")
    assert node.text("log").splitlines() == [
        "ufw prepend allow 8443/tcp comment exlb",
        "ufw prepend allow proto vrrp from 198.51.100.12 comment exlb",
        "ufw prepend allow proto vrrp to 224.0.0.18 comment exlb",
    ]


def test_ufw_loses_the_rule_only_where_it_is_still_marked(node: Node) -> None:
    node.firewall("open ufw - tcp 8443", "open ufw - vrrp from 198.51.100.12")
    (node.root / "ufw").write_text("ufw allow 8443/tcp\nufw allow from 198.51.100.12 proto vrrp comment 'exlb'\n")
    (node.root / "log").write_text("")
    node.firewall("close ufw - tcp 8443", "close ufw - vrrp from 198.51.100.12")
    deleted = [line for line in node.text("log").splitlines() if "delete" in line]
    assert deleted == ["ufw delete allow proto vrrp from 198.51.100.12"]
    assert node.opened == []


def test_ufw_that_does_not_know_vrrp_gets_it_by_its_file_and_at_once(node: Node) -> None:
    (node.root / "old-ufw").touch()
    node.firewall("open ufw - vrrp from 198.51.100.12")
    rule = "ufw-before-input -p 112 -s 198.51.100.12 -m comment --comment exlb -j ACCEPT"
    assert node.text("etc/before.rules") == BEFORE_RULES.removesuffix("COMMIT\n") + f"-A {rule}\nCOMMIT\n"
    assert f"iptables -w -I {rule}" in node.text("log")
    node.firewall("close ufw - vrrp from 198.51.100.12")
    assert node.text("etc/before.rules") == BEFORE_RULES
    assert f"iptables -w -D {rule}" in node.text("log")


def test_ufw_opened_twice_has_one_line_and_one_rule(node: Node) -> None:
    (node.root / "old-ufw").touch()
    node.firewall("open ufw - vrrp from 198.51.100.12", "open ufw - vrrp from 198.51.100.12")
    assert node.text("etc/before.rules").count("198.51.100.12") == 1
    assert node.text("iptables").count("198.51.100.12") == 1


@pytest.mark.parametrize("gone", ["iptables", "etc/before.rules"])
def test_ufw_that_is_closed_in_part_is_closed_whole(node: Node, gone: str) -> None:
    (node.root / "old-ufw").touch()
    node.firewall("open ufw - vrrp from 198.51.100.12")
    (node.root / gone).write_text(BEFORE_RULES if gone.startswith("etc") else "")
    node.firewall("close ufw - vrrp from 198.51.100.12")
    assert (node.text("etc/before.rules"), node.text("iptables"), node.opened) == (BEFORE_RULES, "", [])


def test_rules_of_ufw_are_not_cut_short_where_there_is_no_room(node: Node) -> None:
    (node.root / "old-ufw").touch()
    node.firewall("open ufw - vrrp from 198.51.100.12")
    before = node.text("etc/before.rules")
    (node.root / "bin/grep").write_text('#!/bin/sh\ncase $1 in -v) exit 2 ;; esac\nexec /bin/grep "$@"\n')
    (node.root / "bin/grep").chmod(0o755)
    assert node.run(programs.firewall(), "close ufw - vrrp from 198.51.100.12").returncode == 1
    assert node.text("etc/before.rules") == before
    assert node.opened == ["ufw - vrrp from 198.51.100.12"]


def test_plain_iptables_are_opened_at_the_head(node: Node) -> None:
    node.firewall("open iptables ip vrrp from 198.51.100.12", "close iptables ip vrrp from 198.51.100.12")
    rule = "INPUT -p 112 -s 198.51.100.12 -m comment --comment exlb -j ACCEPT"
    assert node.text("log").splitlines() == [f"iptables -w {verb} {rule}" for verb in ("-I", "-C", "-D")]


@pytest.mark.parametrize("directive", ["open carrier-pigeon - tcp 8443", "shut ufw - tcp 8443"])
def test_unknown_directive_changes_nothing(node: Node, directive: str) -> None:
    done = node.run(programs.firewall(), directive)
    assert done.returncode == 1
    assert node.text("log") == ""


def test_nftables_is_opened_at_the_head_and_closed_to_what_it_was(node: Node) -> None:
    require_nft()
    rules = "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }; "
    rules += "add rule inet f in tcp dport 22 accept"
    opened = ["nftables inet/f/in vrrp from 198.51.100.12", "nftables inet/f/in tcp 8443", "nftables inet/f/in tcp 844"]
    script = f"nft '{rules}' && before=$(nft list ruleset) && ( {programs.firewall()}\n) && nft list ruleset && set -- "
    script += " ".join(f'"close {each}"' for each in opened)
    script += f' && ( {programs.firewall()}\n) && [ "$(nft list ruleset)" = "$before" ] && echo \'as before\''
    done = node.run(script, *(f"open {each}" for each in opened), prefix=("unshare", "-n"))
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
    lines = [line.strip() for line in done.stdout.splitlines()]
    place = lines.index("tcp dport 22 accept")
    assert 'tcp dport 8443 accept comment "exlb tcp 8443"' in lines[:place]
    assert 'ip saddr 198.51.100.12 meta l4proto 112 accept comment "exlb vrrp from 198.51.100.12"' in [
        line.replace("vrrp accept", "112 accept") for line in lines[:place]
    ]
    assert lines[-1] == "as before"


def test_selinux_gets_its_boolean_and_its_labels(node: Node) -> None:
    done = node.run(programs.selinux(), "boolean haproxy_connect_any", "label 6444 http_port_t")
    assert (done.returncode, done.stderr) == (0, "")
    assert node.text("log").splitlines() == [
        "setsebool -P haproxy_connect_any 1",
        "semanage port -a -t http_port_t -p tcp 6444",
    ]


def test_port_with_a_label_of_its_own_is_labelled_anew(node: Node) -> None:
    (node.root / "labelled").touch()
    assert node.run(programs.selinux(), "label 5001 http_port_t").returncode == 0
    assert node.text("log").splitlines()[-1] == "semanage port -m -t http_port_t -p tcp 5001"


def test_selinux_is_as_before_again(node: Node) -> None:
    node.run(programs.selinux(), "boolean haproxy_connect_any")
    done = node.run(programs.selinux(), "undo boolean haproxy_connect_any", "undo label 80 http_port_t")
    assert (done.returncode, done.stderr) == (0, "")
    assert node.text("log").splitlines()[1:] == ["setsebool -P haproxy_connect_any 0"]
    assert node.text("state/selinux") == ""


@pytest.mark.parametrize(("customs", "deleted"), [("6444", True), ("80, 6444, 90", True), ("16444, 64440", False)])
def test_label_is_taken_away_where_it_still_is(node: Node, customs: str, deleted: bool) -> None:
    node.run(programs.selinux(), "label 6444 http_port_t")
    heading = "SELinux Port Type              Proto    Port Number\n\n"
    (node.root / "customs").write_text(f"{heading}http_port_t                    tcp      {customs}\n")
    done = node.run(programs.selinux(), "undo label 6444 http_port_t")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ("semanage port -d -t http_port_t -p tcp 6444" in node.text("log")) == deleted
    assert node.text("state/selinux") == ""
