"""probe.sh, run here by /bin/sh in a scratch root."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

from exlb_fab import facts
from exlb_fab.system import Link, Settings, UnitSettings
from tests.fake import cluster
from tests.unit.node.machine import NEW, OLD, PROBE, PROXY, TOKEN, Machine, proxy_file


def probed(machine: Machine, *questions: str) -> dict[str, facts.Answer]:
    done = machine.run(PROBE, stdin="".join(f"{question}\n" for question in questions))
    assert (done.returncode, done.stderr) == (0, "")
    return facts.parse_answers(done.stdout)


def test_probe_answers_every_question_that_exlb_asks(machine: Machine) -> None:
    plain = cluster()
    syslog = replace(plain, proxying=replace(plain.proxying, log="syslog"))
    questions = [*facts.configuration_questions(syslog), "ping 198.51.100.100", "request https://198.51.100.100:8443/"]
    machine.put("unit/haproxy.service", "[Service]\nRestart=always\n")
    machine.put("sys/net/unix/max_dgram_qlen", "512\n")
    machine.put("sockets/-Hltnp", 'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=36,fd=3))\n')
    machine.put("answers/198.51.100.100:8443", "curl: (7) Failed to connect\n000 0\n")
    done = machine.run(PROBE, stdin="".join(f"{question}\n" for question in questions))
    found = facts.parse(done.stdout, PROXY)
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
    assert found.replies["https://198.51.100.100:8443/"].error == "Failed to connect"
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
    answers = probed(machine, *(f"file {path}" for path in paths.values()))
    found = {name: facts.parse_file(answers[f"file {path}"].text) for name, path in paths.items()}
    assert found["haproxy/haproxy.cfg"].sha256 == hashlib.sha256(OLD.encode()).hexdigest()
    assert found["haproxy/haproxy.cfg"].mode == 0o640
    assert found["haproxy"].kind == "directory"
    assert found["link"].kind == "symbolic link"
    assert found["nothing"].absent


def test_probe_shows_the_journal_of_a_unit_that_does_not_run(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    unit = facts.parse_unit(probed(machine, "unit haproxy")["unit haproxy"].text)
    assert not unit.running
    assert unit.journal == ("the end of the journal of haproxy.service",)


def test_probe_says_that_a_silent_proxy_is_silent(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    assert probed(machine, "proxy-state")["proxy-state"] == facts.Answer("socat: Connection refused", 1)


def test_probe_does_not_take_a_question_for_shell(machine: Machine) -> None:
    odd = ["file $(touch${IFS}owned)", "file *", "file `touch owned`", "nonsense ; touch owned"]
    answers = probed(machine, *odd)
    assert set(answers) == set(odd)
    assert answers["file *"].text == "absent"
    assert answers["nonsense ; touch owned"] == facts.Answer("unknown question nonsense", 64)
    assert not (Path.cwd() / "owned").exists()


def test_probe_carries_content_that_looks_like_its_own_marks(machine: Machine) -> None:
    text = "@ system\n= 0\n| x\nexlb-probe-end\n\x0c@ unit sshd\r\n= 1\n"
    machine.put("odd", text)
    question = f"read {machine.root}/odd"
    answers = probed(machine, question, "addresses")
    assert list(answers) == [question, "addresses"]
    assert answers[question].text + "\n" == text


def test_probe_shows_every_file_of_a_unit_that_is_still_there(machine: Machine) -> None:
    machine.put("unit/haproxy.service", "[Service]\nRestart=always")
    gone, last = machine.root / "gone.conf", machine.put("last.conf", "[Service]\nLimitNOFILE=4096\n")
    machine.put("unit/haproxy.parts", f"{gone} {last}\n")
    answer = probed(machine, "unit-files haproxy")["unit-files haproxy"]
    assert answer.status == 0
    assert facts.parse_unit_files("haproxy", answer.text) == UnitSettings(restart="always", file_limit=4096)
    assert f"# {last}" in answer.text.splitlines()


def test_probe_says_that_there_is_no_such_unit(machine: Machine) -> None:
    assert probed(machine, "unit-files haproxy")["unit-files haproxy"].status == 1


# what manages the network

NETWORK = "[Match]\nName=eth0\n\n[Network]\nAddress=198.51.100.11/24\n"


def network(machine: Machine) -> tuple[tuple[Link, ...], dict[str, facts.FileFact]]:
    return facts.parse_network(probed(machine, "network")["network"].text)


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
    return facts.parse_generations(probed(machine, "generation")["generation"].text)


def test_node_that_exlb_never_changed_has_no_generation(machine: Machine) -> None:
    assert probed(machine, "generation", "history") == {
        "generation": facts.Answer("", 0),
        "history": facts.Answer("", 0),
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
    history = facts.parse_history(probed(pushed, "history")["history"].text)
    assert [each.number for each in history.kept] == [1]


def test_history_tells_the_files_and_the_author_of_every_generation_and_no_content(pushed: Machine) -> None:
    text = probed(pushed, "history")["history"].text
    history = facts.parse_history(text)
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
    holder = facts.parse_holder(answer)
    assert holder is not None
    assert (holder.who, holder.what) == ("eva", "push-config")
    machine.release()
    assert probed(machine, "lock")["lock"].text == "free"
    assert facts.parse_holder(probed(machine, "lock")["lock"].text) is None


def test_rules_that_nft_cannot_list_are_not_taken_for_none(machine: Machine) -> None:
    machine.put("nft", "table inet f {\n\tchain in {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n")
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
