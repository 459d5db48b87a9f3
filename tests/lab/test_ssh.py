"""Every way in: root, sudo with and without password, gateways, keys, agents; and keys of hosts that are wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest

from tests.lab.bastion import Bastion


def asked(
    green: Bastion, words: list[str], env: Path, prompt: str, reply: str, **variables: str
) -> tuple[int, str, int]:
    """Run exlb in a terminal, answer a prompt each time it comes; return exit status, output, and the times."""
    argv = green.lab.argv(["exlb", *words])
    environ = {**green.lab.command_environment(), "EXLB_ENV": str(env), "COLUMNS": "120", **variables}
    child = pexpect.spawn(argv[0], argv[1:], env=environ, encoding="utf-8", timeout=60)
    times = 0
    output = ""
    while child.expect([prompt, pexpect.EOF]) == 0:
        output += child.before or ""
        times += 1
        child.sendline(reply)
    output += child.before or ""
    child.close()
    assert child.exitstatus is not None
    return child.exitstatus, output, times


def host_keys(green: Bastion) -> dict[str, str]:
    """Return `type key` of each address that the lab's known_hosts has."""
    fields = (line.split(maxsplit=1) for line in (green.lab.directory / "known_hosts").read_text().splitlines())
    return {name: key for names, key in fields for name in names.split(",")}


def test_another_host_key_is_refused(green: Bastion) -> None:
    known = green.folder / "known_hosts"
    keys = host_keys(green)
    keys[green.address("lb2")] = keys[green.address("lb1")]
    known.write_text("".join(f"{host} {key}\n" for host, key in keys.items()))
    env = green.environment(SSH_KNOWN_HOSTS=str(known))
    before = green.sessions("lb2")
    ran = green.exlb("verify", env=env, status=4)
    assert "lb2: host key differs from the known one" in ran.said
    ran = green.exlb("push-config", env=env, status=4)
    assert "host key differs" in ran.said
    assert "ssh-keygen -R" in ran.said
    ran = green.exlb("verify", "--host-key-check", "accept-new", env=env, status=4)
    assert "lb2: host key differs from the known one" in ran.said
    assert green.sessions("lb2") == before


def test_an_unknown_host_key_is_refused_unless_new_ones_are_accepted(green: Bastion) -> None:
    known = green.folder / "known_hosts"
    env = green.environment(SSH_KNOWN_HOSTS=str(known))
    ran = green.exlb("verify", env=env, status=4)
    assert "is not known" in ran.said
    assert "ssh-keyscan" in ran.said
    assert not known.exists()
    ran = green.exlb("verify", "--host-key-check", "accept-new", env=env)
    assert ran.said.count("accepted the new host key") == 3
    assert len(known.read_text().splitlines()) == 3
    green.exlb("verify", env=env)


@pytest.mark.slow
def test_host_keys_are_not_looked_at_only_when_told(green: Bastion) -> None:
    known = green.folder / "known_hosts"
    green.exlb("verify", "--host-key-check", "no", env=green.environment(SSH_KNOWN_HOSTS=str(known)))
    assert not known.exists()


@pytest.mark.slow
def test_works_as_a_user_with_sudo_without_password(green: Bastion) -> None:
    env = green.environment(SSH_USER="operator", BALANCE="roundrobin")
    with green.watched() as watch:
        green.exlb("deploy", env=env)
    assert watch.seen.failed == 0
    assert green.exlb("exec", "--", "id", "-un", env=env).said.count("operator") == 3
    assert green.exlb("exec", "--sudo", "--", "id", "-un", env=env).said.count("root") == 3


def test_works_as_a_user_whose_sudo_wants_a_password(green: Bastion) -> None:
    password = (green.lab.directory / "clerk-password").read_text().strip()
    env = green.environment(SSH_USER="clerk", BALANCE="leastconn")
    ran = green.exlb("verify", env=env, status=1)
    assert "sudo refuses" in ran.said
    assert "--ask-sudo-pass" in ran.said
    words = ["deploy", "--ask-sudo-pass"]
    status, output, times = asked(green, words, env, "sudo password on the nodes: ", password)
    assert (status, times) == (0, 1), output
    assert "GREEN" in output
    assert password not in output
    status, output, _ = asked(green, ["verify", "--ask-sudo-pass"], env, "sudo password on the nodes: ", "wrong")
    assert status == 1
    assert "sudo refuses" in output


def test_works_through_a_gateway(green: Bastion) -> None:
    env = green.environment(SSH_GATEWAY=f"root@{green.address('lb1')}")
    green.exlb("verify", env=env)
    log = green.inside("lb2", "journalctl", "-u", "ssh", "-o", "cat", "-n", "50", "--no-pager")
    assert f"from {green.address('lb1')} " in log


@pytest.mark.slow
def test_works_through_a_proxy_jump_of_the_ssh_configuration(green: Bastion) -> None:
    home = green.folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh/config").write_text(
        f"Host {green.address('lb2')} {green.address('lb3')}\n  ProxyJump root@{green.address('lb1')}\n"
        f"Host *\n  UserKnownHostsFile {green.lab.directory}/known_hosts\n"
    )
    env = green.environment(SSH_KNOWN_HOSTS="")
    green.exlb("verify", env=env, variables={"HOME": str(home)})
    log = green.inside("lb3", "journalctl", "-u", "ssh", "-o", "cat", "-n", "50", "--no-pager")
    assert f"from {green.address('lb1')} " in log


@pytest.mark.slow
def test_an_unknown_gateway_is_refused(green: Bastion) -> None:
    known = green.folder / "known_hosts"
    keys = host_keys(green)
    known.write_text("".join(f"{host} {key}\n" for host, key in keys.items() if host != green.address("lb1")))
    env = green.environment(SSH_GATEWAY=f"root@{green.address('lb1')}", SSH_KNOWN_HOSTS=str(known))
    ran = green.exlb("verify", "--nodes", "lb2", env=env, status=4)
    assert f"gateway root@{green.address('lb1')}: host key of {green.address('lb1')} is not known" in ran.said


@pytest.fixture
def encrypted_key(green: Bastion) -> Path:
    key = green.folder / "id_encrypted"
    shutil.copy(green.lab.directory / "id_ed25519", key)
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", str(key)], check=True, capture_output=True)
    return key


@pytest.mark.slow
def test_the_passphrase_of_an_encrypted_key_is_asked_for_once(green: Bastion, encrypted_key: Path) -> None:
    env = green.environment(SSH_KEY=str(encrypted_key))
    status, output, times = asked(green, ["verify"], env, r"Passphrase of the SSH key \S+: ", "open sesame")
    assert (status, times) == (0, 1), output
    assert "open sesame" not in output


@pytest.mark.slow
def test_an_encrypted_key_without_a_terminal_says_what_to_do(green: Bastion, encrypted_key: Path) -> None:
    ran = green.exlb("verify", env=green.environment(SSH_KEY=str(encrypted_key)), status=4)
    assert "ssh-add" in ran.said


@pytest.mark.slow
def test_works_with_an_agent(green: Bastion, encrypted_key: Path) -> None:
    home = green.folder / "home"
    home.mkdir()
    socket = green.folder / "agent.sock"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        green.wait_until(socket.exists)
        variables = {"SSH_AUTH_SOCK": str(socket), "HOME": str(home)}
        key = str(green.lab.directory / "id_ed25519")
        subprocess.run(["ssh-add", "-q", key], env={**os.environ, **variables}, check=True)
        green.exlb("verify", env=green.environment(SSH_KEY=""), variables=variables)
        green.exlb("verify", env=green.environment(SSH_KEY=str(encrypted_key)), variables=variables)
    finally:
        agent.terminate()
        agent.wait(timeout=10)


def test_no_key_at_all_is_refused_by_the_node(green: Bastion) -> None:
    home = green.folder / "home"
    home.mkdir()
    env = green.environment(SSH_KEY="")
    ran = green.exlb("verify", env=env, status=4, variables={"HOME": str(home), "SSH_AUTH_SOCK": ""})
    assert "lb1: " in ran.said
    assert "ssh-add -l" in ran.said
