"""probe.sh, run here by /bin/sh in a scratch root."""

from __future__ import annotations

import hashlib
from pathlib import Path

from exlb_fab import facts
from tests.fake import cluster
from tests.unit.node.machine import NEW, OLD, PROBE, PROXY, TOKEN, Machine, proxy_file


def probed(machine: Machine, *questions: str) -> dict[str, facts.Answer]:
    done = machine.run(PROBE, stdin="".join(f"{question}\n" for question in questions))
    assert (done.returncode, done.stderr) == (0, "")
    return facts.parse_answers(done.stdout)


def test_probe_answers_every_question_that_exlb_asks(machine: Machine) -> None:
    questions = [
        *facts.configuration_questions(cluster()),
        "ping 198.51.100.100",
        "request https://198.51.100.100:8443/",
    ]
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
