"""probe.sh, run here by /bin/sh in a scratch root."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from exlb_fab import answers, facts, questions
from exlb_fab.host import parse_spaces, parse_trackers
from exlb_fab.lab.identity import self_signed
from exlb_fab.system import Link, Settings, UnitSettings
from tests.fake import cluster
from tests.unit.node.machine import NEW, OLD, PROBE, PROXY, TOKEN, Machine, proxy_file


def probed(machine: Machine, *questions: str) -> dict[str, answers.Answer]:
    done = machine.run(PROBE, stdin="".join(f"{question}\n" for question in questions))
    assert (done.returncode, done.stderr) == (0, "")
    return answers.parse_answers(done.stdout)


def test_strays_are_processes_of_a_name_that_are_not_of_the_unit_and_do_not_only_check_a_file(machine: Machine) -> None:
    def process(pid: int, name: str, group: str, *words: str) -> None:
        (machine.root / "proc" / str(pid)).mkdir(parents=True)
        machine.put(f"proc/{pid}/comm", f"{name}\n")
        machine.put(f"proc/{pid}/cgroup", f"0::/system.slice/{group}\n")
        machine.put(f"proc/{pid}/cmdline", "".join(f"{word}\0" for word in words))

    process(11, "haproxy", "haproxy.service", "/usr/sbin/haproxy", "-Ws", "-f", "/etc/haproxy/haproxy.cfg")
    process(12, "haproxy", "other.service", "haproxy", "-f", "/root/other.cfg")
    process(13, "haproxy", "session-1.scope", "haproxy", "-c", "-f", "/root/other.cfg")
    process(14, "haproxy", "session-1.scope", "haproxy", "-v")
    process(15, "nginx", "nginx.service", "nginx")
    process(16, "haproxy", "haproxy.service.d", "")
    (found,) = probed(machine, "strays haproxy haproxy").values()
    assert (found.text.splitlines(), found.status) == (["12 haproxy -f /root/other.cfg"], 0)


def test_probe_answers_every_question_that_exlb_asks(machine: Machine) -> None:
    plain = cluster()
    syslog = replace(plain, proxying=replace(plain.proxying, log="syslog"))
    served = [each for each in questions.service_questions(plain, plain.nodes[0]) if not each.startswith("space ")]
    asked = [*questions.configuration_questions(syslog), *served, f"space {machine.root}/etc"]
    machine.put("unit/haproxy.service", "[Service]\nRestart=always\n")
    machine.put("sys/net/unix/max_dgram_qlen", "512\n")
    machine.put("sockets/-Hltnp", 'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=36,fd=3))\n')
    machine.put("answers/198.51.100.100:8443", "curl: (7) Failed to connect\n000 0\n")
    machine.put("answers/198.51.100.100.neighbours", "198.51.100.100 dev eth0 lladdr 02:00:00:00:00:0c REACHABLE\n")
    machine.put("answers/198.51.100.11:6443.pem", f"CONNECTED\n{self_signed(('198.51.100.100',))[0].decode()}---\n")
    done = machine.run(PROBE, stdin="".join(f"{question}\n" for question in asked))
    found = answers.parse(done.stdout, PROXY)
    assert found.system is not None
    assert (found.system.name, found.system.container) == ("Debian GNU/Linux 12 (bookworm)", None)
    assert found.system.managers == ("apt-get", "dnf")
    assert found.programs == {"haproxy", "keepalived", "curl", "socat", "ip", "ss", "ping"}
    assert found.packages == {"haproxy": "2.6.12-1"}
    assert (str(found.proxy_version), str(found.keepalived_version)) == ("2.6.12", "2.2.7")
    assert found.proxy_services == {"prometheus-exporter"}
    assert [str(each.address) for each in found.addresses] == ["198.51.100.11/24"]
    assert [(each.port, each.process) for each in found.sockets] == [(22, "sshd")]
    assert {unit.running for unit in found.units.values()} == {True}
    assert found.pings == {"198.51.100.100": False}
    assert found.replies["https://198.51.100.100:8443/readyz"].error == "Failed to connect"
    assert [each.mac for each in found.neighbours["198.51.100.100"]] == ["02:00:00:00:00:0c"]
    assert found.macs == {"eth0": "02:00:00:00:00:0b"}
    assert [str(host) for each in found.certificates.values() for host in each.addresses] == ["198.51.100.100"]
    assert [each.path for each in found.spaces] == [f"{machine.root}/etc"]
    assert found.clock is not None
    assert 0 <= found.clock - found.system.time < 60
    assert (found.trackers, found.complaints) == ((), ())
    assert found.settings == Settings(
        units={"haproxy": UnitSettings(restart="always", file_limit=524288)}, dgram_qlen=512
    )
    assert found.proxy_state is not None
    assert (found.proxy_state.digest, len(found.proxy_state.servers)) == (None, 1)


def test_probe_of_a_red_hat_asks_its_own_database(machine: Machine) -> None:
    machine.put("etc/os-release", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    assert probed(machine, "packages haproxy keepalived")["packages haproxy keepalived"].text == "haproxy 2.4.22-3.el9"


def test_probe_tells_files_from_what_is_none(machine: Machine) -> None:
    (machine.root / "etc/link").symlink_to("haproxy")
    paths = {name: f"{machine.root}/etc/{name}" for name in ("haproxy/haproxy.cfg", "haproxy", "link", "nothing")}
    said = probed(machine, *(f"file {path}" for path in paths.values()))
    found = {name: answers.parse_file(said[f"file {path}"].text) for name, path in paths.items()}
    assert found["haproxy/haproxy.cfg"].sha256 == hashlib.sha256(OLD.encode()).hexdigest()
    assert found["haproxy/haproxy.cfg"].mode == 0o640
    assert found["haproxy"].kind == "directory"
    assert found["link"].kind == "symbolic link"
    assert found["nothing"].absent


def test_probe_shows_what_a_unit_that_does_not_run_has_said_itself(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    unit = answers.parse_unit(probed(machine, "unit haproxy")["unit haproxy"].text)
    assert not unit.running
    assert unit.journal == ("what haproxy.service said last",)


def test_connections_of_clients_do_not_hide_what_a_proxy_says_of_itself(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    own = [
        "[ALERT]    (648) : Current worker (1393) exited with code 139 (Segmentation fault)",
        "Server kube-master/198.51.100.12 is DOWN, reason: Layer4 connection problem",
        "Proxy kube-master stopped (cumulated conns: FE: 12, BE: 12).",
        "198.51.100.13 is no connection",
    ]
    clients = [
        "198.51.100.13:52820 [22/Nov/2026:03:23:35.997] kube-master kube-master/b 1/0/28 1550 -- 1/1/0/0/0 0/0",
        "[2001:db8::7]:52820 [22/Nov/2026:03:23:35.997] kube-master kube-master/b 1/0/28 1550 -- 1/1/0/0/0 0/0",
        "2001:db8::7:52820 [22/Nov/2026:03:23:35.997] kube-master kube-master/b 1/0/28 1550 -- 1/1/0/0/0 0/0",
        "Connect from 198.51.100.13:52820 to 198.51.100.100:8443 (kube-master/TCP)",
    ]
    chatter = (line for pair in zip(own, clients, strict=True) for line in (*pair, *clients))
    machine.put("unit/chatter", "".join(f"{line}\n" for line in chatter))
    unit = answers.parse_unit(probed(machine, "unit haproxy")["unit haproxy"].text)
    assert unit.journal == (*own, "what haproxy.service said last")


def test_probe_asks_for_the_words_of_keepalived_s_child_by_its_name_too(machine: Machine) -> None:
    (machine.root / "running-keepalived").unlink()
    unit = answers.parse_unit(probed(machine, "unit keepalived")["unit keepalived"].text)
    assert unit.journal == ("what keepalived.service said last", "what Keepalived_vrrp said last")


def test_probe_says_that_a_silent_proxy_is_silent(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    assert probed(machine, "proxy-state")["proxy-state"] == answers.Answer("socat: Connection refused", 1)


def test_proxy_that_hangs_does_not_keep_the_rest_of_its_node_from_being_known(machine: Machine) -> None:
    machine.put("hanging-haproxy", "")
    answer = probed(machine, "proxy-state")["proxy-state"]
    assert answer == answers.Answer("it hangs: nobody reads what it is asked", 1)


def test_probe_does_not_take_a_question_for_shell(machine: Machine) -> None:
    odd = ["file $(touch${IFS}owned)", "file *", "file `touch owned`", "nonsense ; touch owned"]
    said = probed(machine, *odd)
    assert set(said) == set(odd)
    assert said["file *"].text == "absent"
    assert said["nonsense ; touch owned"] == answers.Answer("unknown question nonsense", 64)
    assert not (Path.cwd() / "owned").exists()


def test_probe_carries_content_that_looks_like_its_own_marks(machine: Machine) -> None:
    text = "@ system\n= 0\n| x\nexlb-probe-end\n\x0c@ unit sshd\r\n= 1\n"
    machine.put("odd", text)
    question = f"read {machine.root}/odd"
    said = probed(machine, question, "addresses")
    assert list(said) == [question, "addresses"]
    assert said[question].text + "\n" == text


def test_probe_shows_every_file_of_a_unit_that_is_still_there(machine: Machine) -> None:
    machine.put("unit/haproxy.service", "[Service]\nRestart=always")
    gone, last = machine.root / "gone.conf", machine.put("last.conf", "[Service]\nLimitNOFILE=4096\n")
    machine.put("unit/haproxy.parts", f"{gone} {last}\n")
    answer = probed(machine, "unit-files haproxy")["unit-files haproxy"]
    assert answer.status == 0
    assert answers.parse_unit_files("haproxy", answer.text) == UnitSettings(restart="always", file_limit=4096)
    assert f"# {last}" in answer.text.splitlines()


def test_probe_says_that_there_is_no_such_unit(machine: Machine) -> None:
    assert probed(machine, "unit-files haproxy")["unit-files haproxy"].status == 1


# what manages the network

NETWORK = "[Match]\nName=eth0\n\n[Network]\nAddress=198.51.100.11/24\n"


def network(machine: Machine) -> tuple[tuple[Link, ...], dict[str, facts.FileFact]]:
    return answers.parse_network(probed(machine, "network")["network"].text)


def put_network(machine: Machine, folder: str = "etc", text: str = NETWORK) -> Path:
    """Let networkd manage eth0 by a file in etc or run."""
    (machine.root / folder / "systemd/network").mkdir(parents=True, exist_ok=True)
    path = machine.put(f"{folder}/systemd/network/10-eth0.network", text)
    machine.put("running-systemd-networkd")
    machine.put("unit/networks", f"eth0 {path}\n")
    return path


def put_part(machine: Machine, name: str, keeps: str, folder: str = "etc") -> Path:
    """Put a drop-in beside that file."""
    path = machine.root / folder / "systemd/network/10-eth0.network.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[Network]\nKeepConfiguration={keeps}\n")
    return path


def test_probe_finds_the_file_by_which_networkd_manages_an_interface(machine: Machine) -> None:
    path = put_network(machine)
    guard = f"{machine.root}/etc/systemd/network/10-eth0.network.d/exlb.conf"
    assert network(machine) == ((Link("eth0", "networkd", str(path), ""),), {guard: facts.FileFact("absent")})


def test_probe_shows_the_guard_that_is_there_and_does_not_count_it(machine: Machine) -> None:
    put_network(machine, "run")  # as netplan does
    guard = put_part(machine, "exlb.conf", "static")
    (link,), files = network(machine)
    assert (link.file, link.keeps) == (f"{machine.root}/run/systemd/network/10-eth0.network", "")
    assert files[str(guard)].sha256 == hashlib.sha256(guard.read_bytes()).hexdigest()


def test_probe_shows_a_guard_of_an_interface_that_is_managed_no_more(machine: Machine) -> None:
    guard = put_part(machine, "exlb.conf", "static")
    links, files = network(machine)
    assert links == ()
    assert list(files) == [str(guard)]


def test_last_word_on_what_networkd_keeps_counts_wherever_it_stands(machine: Machine) -> None:
    put_network(machine, text=f"{NETWORK}KeepConfiguration=dhcp\n")
    assert network(machine)[0][0].keeps == "dhcp"
    put_part(machine, "50-b.conf", "no", "run")
    assert network(machine)[0][0].keeps == "no"
    put_part(machine, "40-a.conf", "yes")
    assert network(machine)[0][0].keeps == "no"
    put_part(machine, "50-b.conf", "static")  # hides the one of its name in /run
    assert network(machine)[0][0].keeps == "static"


def test_interface_that_nothing_manages_is_left_out(machine: Machine) -> None:
    machine.put("running-systemd-networkd")
    machine.put("unit/networks", "eth0 n/a\n")
    assert network(machine) == ((), {})


def test_probe_tells_what_network_manager_has_connected(machine: Machine) -> None:
    machine.put("unit/devices", "eth0:connected\nlo:connected (externally)\neth1:unmanaged\n")
    assert network(machine)[0] == ()
    machine.put("running-NetworkManager")
    assert network(machine)[0] == (Link("eth0", "NetworkManager"),)


# generations, and who holds the node


def generations(machine: Machine) -> facts.Generations:
    return answers.parse_generations(probed(machine, "generation")["generation"].text)


def test_node_that_exlb_never_changed_has_no_generation(machine: Machine) -> None:
    assert probed(machine, "generation", "history") == {
        "generation": answers.Answer("", 0),
        "history": answers.Answer("", 0),
    }


def test_probe_tells_which_generation_is_active_and_which_are_kept(pushed: Machine) -> None:
    assert pushed.push(proxy_file("bb")).done
    found = generations(pushed)
    assert (found.current, found.edited, found.kept, found.unfinished) == (2, False, (0, 1, 2), None)
    assert not found.changing
    assert pushed.rollback(1).done
    assert (generations(pushed).current, generations(pushed).kept) == (1, (0, 1, 2))


def test_probe_sees_a_hand_edit_of_bytes_mode_or_presence(pushed: Machine) -> None:
    pushed.proxy.chmod(0o644)
    assert generations(pushed).edited
    pushed.write(pushed.proxy, NEW, 0o600)
    assert not generations(pushed).edited
    pushed.proxy.write_text(f"{NEW}\n")
    assert generations(pushed).edited
    pushed.proxy.unlink()
    assert generations(pushed).edited


def test_probe_takes_an_active_generation_whose_directory_is_gone_for_edited(pushed: Machine) -> None:
    (pushed.state / "generations/0001/manifest").unlink()
    assert generations(pushed).edited


def test_probe_tells_what_has_not_ended_and_what_is_kept_no_longer(pushed: Machine) -> None:
    (pushed.state / "intent").write_text("0002 0001\n")
    (pushed.state / "pruned").write_text("0007\n")
    pushed.put("running-exlb-apply")
    found = generations(pushed)
    assert (found.unfinished, found.pruned, found.changing) == ((2, 1), 7, True)


def test_what_never_was_active_is_no_generation(pushed: Machine) -> None:
    (pushed.state / "generations/0000/was-active").unlink()
    assert generations(pushed).kept == (1,)
    history = answers.parse_history(probed(pushed, "history")["history"].text)
    assert [each.number for each in history.kept] == [1]


def test_history_tells_the_files_and_the_author_of_every_generation_and_no_content(pushed: Machine) -> None:
    text = probed(pushed, "history")["history"].text
    history = answers.parse_history(text)
    assert [each.number for each in history.kept] == [0, 1]
    first, second = history.kept
    assert (first.meta["what"], second.meta["what"], second.meta["who"]) == ("found on the node", "push-config", "eva")
    assert second.meta["previous"] == "0000"
    assert first.files[0].path == str(pushed.proxy)
    assert first.files[0].sha256 == hashlib.sha256(OLD.encode()).hexdigest()
    assert [line.split(" ", 1)[1] for line in history.journal] == ["0000 -> 0001 eva bastion push-config: done"]
    assert "description" not in text


def test_probe_tells_who_holds_the_node(machine: Machine) -> None:
    answer = probed(machine, "lock")["lock"].text
    assert f"token={TOKEN}" in answer.splitlines()
    holder = answers.parse_holder(answer)
    assert holder is not None
    assert (holder.who, holder.what) == ("eva", "push-config")
    machine.release()
    assert probed(machine, "lock")["lock"].text == "free"
    assert answers.parse_holder(probed(machine, "lock")["lock"].text) is None


def test_rules_that_nft_cannot_list_are_not_taken_for_none(machine: Machine) -> None:
    machine.put("nft", "table inet f {\n\tchain in {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n")
    assert probed(machine, "firewall")["firewall"].text == "unread `nft -j list table inet f` says nothing"
    for hook in ("output", "prerouting"):
        machine.put(
            "nft", f"table inet f {{\n\tchain in {{\n\t\ttype filter hook {hook} priority 0; policy drop;\n\t}}\n}}\n"
        )
        assert probed(machine, "firewall")["firewall"].text == "unread `nft -j list table inet f` says nothing"
    machine.put("nft-json", '{"nftables": []}\n')
    assert probed(machine, "firewall")["firewall"].text == 'nft {"nftables": []}'


def test_command_that_no_proxy_reads_any_more_is_no_error_of_its_own(machine: Machine) -> None:
    os.mkfifo(machine.root / "closed")
    text = machine.program("session.sh", "units.sh", "haproxy.sh")
    text += """
        trap '' PIPE
        socat() { exec <&-; echo >"$ROOT/closed"; return 1; }
        printf() { read -r _ <"$ROOT/closed"; command printf "$@"; }
        proxy_up; proxy_servers; proxy_digest; proxy_state
    """
    done = subprocess.run(
        [*machine.shell, "-c", text], env=machine.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("", "")


# what the node sees as a client, and of itself


def test_connection_alone_is_asked_of_what_speaks_no_http(machine: Machine) -> None:
    machine.put("answers/[2001:db8::11]:5432", "2026/11/21 15:00:00 socat[7] E connect(5, ...): Connection refused\n")
    open_, closed = "request tcp://198.51.100.11:5432", "request tcp://[2001:db8::11]:5432"
    said = probed(machine, open_, closed)
    assert answers.parse_connection(said[open_]) == facts.Reply(None, "", accepted=True)
    refused = facts.Reply(None, "connect(5, ...): Connection refused", accepted=False)
    assert answers.parse_connection(said[closed]) == refused


@pytest.mark.parametrize(
    ("body", "begins"),
    [("ok", "ok"), ("", ""), ("x" * 300_000, "x" * 256), ('{\n  "kind": "Status"\n}\0', '{   "kind": "Status" } ')],
    ids=["short", "empty", "long", "several lines"],
)
def test_beginning_of_what_the_real_curl_gets_is_told_in_one_line(
    machine: Machine, tmp_path: Path, body: str, begins: str
) -> None:
    text = machine.program(*PROBE).replace(f"PATH={machine.bin}", f"PATH={os.environ['PATH']}")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        question = f"request http://127.0.0.1:{listener.getsockname()[1]}/readyz"
        done = subprocess.run(
            [*machine.shell, "-c", text], input=f"{question}\n", capture_output=True, text=True, timeout=60, check=False
        )
        thread.join(timeout=10)
    found = answers.parse_answers(done.stdout)[question]
    assert answers.parse_reply(found) == facts.Reply(404, "", accepted=True, body=begins)


def test_space_of_what_is_not_there_yet_is_that_of_its_parent(machine: Machine) -> None:
    wanted = f"{machine.root}/var/lib/not/yet"
    (found,) = parse_spaces(probed(machine, f"space {wanted}")[f"space {wanted}"].text)
    status = os.statvfs(machine.root)
    assert (found.path, found.writable, found.total_bytes) == (wanted, True, status.f_blocks * status.f_frsize)
    assert Path(found.mount).is_mount()
    assert found.total_inodes == status.f_files


def test_node_without_openssl_is_told_from_one_that_is_shown_nothing(machine: Machine) -> None:
    question = "certificate 198.51.100.12:6443"
    assert probed(machine, question)[question] == answers.Answer("", 0)
    text = machine.program(*PROBE).replace("command -v openssl", "command -v no-openssl")
    done = subprocess.run(
        [*machine.shell, "-c", text], env=machine.environment, input=f"{question}\n", capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert answers.parse_answers(done.stdout)[question] == answers.Answer("", 127)


def test_checks_of_keepalived_are_told_with_what_they_need(machine: Machine) -> None:
    own = machine.put("check.sh", f"#!{machine.bin}/sh\nexit 0\n")
    odd = machine.put("odd.sh", "#! /nonexistent/bash -e\n")
    flat = machine.put("flat.sh", "#!/bin/sh\n")
    for path in (own, odd):
        path.chmod(0o755)
    machine.keepalived.write_text(
        f"""
vrrp_script one {{
    script "{own} 2 198.51.100.11:8443"
}}
vrrp_script two {{
    script {odd} # a comment
    script "{flat}"
    script /nonexistent
    script "awk -f x"
    # script "/commented"
    !script "/commented"
}}
vrrp_track_process three {{
    process haproxy
}}
vrrp_instance VI {{
    script_user root
    track_script {{
        one
    }}
    track_process {{
        three
    }}
}}
"""
    )
    question = f"keepalived-checks {machine.keepalived}"
    found = parse_trackers(probed(machine, question)[question].text)
    assert [(each.state, each.name) for each in found] == [
        ("there", str(own)),
        ("no-interpreter", str(odd)),
        ("not-executable", str(flat)),
        ("missing", "/nonexistent"),
        ("there", "awk"),
        ("process", "haproxy"),
    ]


@pytest.mark.parametrize(
    "said",
    [
        "Failed to set/clear process event listen - errno 111 - Connection refused",
        "Failed to open process monitoring socket - errno 93 - Protocol not supported",
        "track_process not available - is CONFIG_PROC_EVENTS enabled in kernel config?",
        "WARNING - the kernel does not support proc events - track_process will not work",
    ],
)
def test_process_of_whose_end_keepalived_is_not_told_is_told_from_others(machine: Machine, said: str) -> None:
    machine.keepalived.write_text("vrrp_track_process one {\n    process haproxy\n}\n")
    machine.put("unit/keepalived.started", "@1000\n")
    question = f"keepalived-checks {machine.keepalived}"
    assert probed(machine, question)[question].text == "process haproxy"
    machine.put("unit/journal", f"Starting VRRP child process\n{said}\n")
    assert probed(machine, question)[question].text == "deaf haproxy"
    assert "journalctl -u keepalived.service --since @1000" in "\n".join(machine.log)


def test_complaints_are_those_of_adverts_each_once(machine: Machine) -> None:
    bogus = "bogus VRRP packet received on eth0 !!!"
    other = "(VI) ip address associated with VRID 68 not present in MASTER advert : 198.51.100.100"
    machine.put("unit/journal", f"Entering BACKUP STATE\n{other}\n{bogus}\n{other}\n{bogus}\n")
    machine.put("unit/keepalived.started", "Sat 2026-11-21 05:00:00 UTC\n")
    answer = probed(machine, "keepalived-complaints")["keepalived-complaints"]
    assert answer.status == 0
    assert sorted(answer.text.split("\n")) == sorted([bogus, other])


def test_of_adverts_of_a_lower_priority_there_is_one_complaint_per_sender(machine: Machine) -> None:
    master = "(VI) Received advert from 198.51.100.{} with lower priority {}, ours 120, forcing new election"
    backup = "(VI) received lower priority (50) advert from fe80::66 - discarding"
    bogus = "bogus VRRP packet received on eth0 !!!"
    said = [bogus, *(master.format(*each) for each in ((12, 110), (66, 50), (12, 50), (66, 50))), backup]
    machine.put("unit/journal", "\n".join(["Received advert from somewhere", *said, "received signal"]) + "\n")
    found = probed(machine, "keepalived-complaints")["keepalived-complaints"].text.split("\n")
    assert (found[0], len(found)) == (bogus, 4)
    assert {master.format(66, 50), backup} <= set(found)


def test_complaints_are_asked_for_since_the_last_start_and_of_ten_minutes_at_most(machine: Machine) -> None:
    def since() -> int:
        machine.put("log")
        probed(machine, "keepalived-complaints")
        (call,) = [line for line in machine.log if line.startswith("journalctl ")]
        return int(call.split("@")[1].split(" ")[0])

    now = int(time.time())
    assert now - 601 <= since() <= now - 540
    machine.put("unit/keepalived.started", f"@{now - 60}\n")
    assert since() == now - 60
