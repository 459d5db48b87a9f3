"""From a cluster to files: templates, modes, and the rules that keepalived and haproxy insist on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from exlb_fab import vrrp
from exlb_fab.cluster import Secret, Stats
from exlb_fab.errors import RenderError
from exlb_fab.rendering import File, Templates, is_address, mask_keepalived, render
from tests.fake import cluster

THREE = cluster()
MARK = "description exlb-{{ digest }}"


def rendered(directory: Path | None = None) -> tuple[File, File]:
    proxy, keepalived = render(THREE, THREE.nodes[0], Templates(directory))
    return proxy, keepalived


def own(folder: Path, text: str, name: str = "haproxy.cfg.j2") -> Path:
    (folder / name).write_text(text)
    return folder


def test_template_of_a_directory_takes_the_place_of_the_packaged_one(tmp_path: Path) -> None:
    proxy, keepalived = rendered(own(tmp_path, f"{MARK}\nlisten {{{{ listeners[0].name }}}}\n"))
    assert proxy.text == f"description exlb-{proxy.digest}\nlisten kube-master\n"
    assert keepalived == rendered()[1]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("global\n{% if %}\n", "haproxy.cfg.j2:2: "),
        ("global\n{{ nothing }}\n", "haproxy.cfg.j2:2: 'nothing' is undefined"),
        ("{{ stats.nothing }}\n", "haproxy.cfg.j2:1: "),
        ("\n\n{{ stats.port / 0 }}\n", "haproxy.cfg.j2:3: division by zero"),
        ("{{ stats | nothing }}\n", "nothing"),
        ("{% include 'missing.j2' %}\n", "missing.j2"),
        ("global\n", "without it nobody can tell which configuration runs"),
    ],
)
def test_broken_template_is_named(tmp_path: Path, template: str, words: str) -> None:
    with pytest.raises(RenderError) as caught:
        rendered(own(tmp_path, template))
    assert words in caught.value.message


@pytest.mark.parametrize(("template", "text"), [("a", "a\n"), ("a\n", "a\n"), ("a\n\n", "a\n\n"), ("", "")])
def test_last_line_always_ends_and_nothing_stays_nothing(tmp_path: Path, template: str, text: str) -> None:
    assert rendered(own(tmp_path, template, "keepalived.conf.j2"))[1].text == text


def test_file_that_replaces_no_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"haproxy\.j2: replaces no template") as caught:
        rendered(own(tmp_path, "global\n", "haproxy.j2"))
    assert caught.value.hint == "the templates are haproxy.cfg.j2, keepalived.conf.j2"


def test_secret_that_a_template_does_not_reveal_on_purpose_is_masked(tmp_path: Path) -> None:
    secret = replace(THREE, stats=Stats(10080, "admin", Secret("geheim")))
    proxy = render(
        secret, secret.nodes[0], Templates(own(tmp_path, f"{MARK}\n{{{{ stats.password }}}} {{{{ stats }}}}\n"))
    )[0]
    assert "geheim" not in proxy.text
    assert "********" in proxy.text


def test_file_with_a_password_is_for_root_alone() -> None:
    assert [file.mode for file in rendered()] == [0o644, 0o644]
    secret = replace(THREE, stats=Stats(10080, "admin", Secret("geheim")))
    assert [file.mode for file in render(secret, secret.nodes[0], Templates())] == [0o600, 0o644]


@pytest.mark.parametrize(
    ("name", "line", "modes"),
    [
        ("haproxy.cfg.j2", "stats auth admin:geheim", [0o600, 0o644]),
        ("keepalived.conf.j2", "auth_pass geheim", [0o644, 0o600]),
    ],
)
def test_file_with_a_password_that_stands_in_a_template_is_for_root_alone(
    tmp_path: Path, name: str, line: str, modes: list[int]
) -> None:
    assert [file.mode for file in rendered(own(tmp_path, f"{MARK}\n{line}\n", name))] == modes


@pytest.mark.parametrize("line", ["auth_pass geheim", "auth_pas geheim", "  authentication { auth_passwd geheim }"])
def test_password_of_keepalived_is_masked_under_whatever_name(line: str) -> None:
    assert "geheim" not in mask_keepalived(f"auth_type PASS\n{line}\n")
    assert mask_keepalived("auth_type PASS\n") == "auth_type PASS\n"


def test_statistics_without_a_password_are_for_the_node_alone() -> None:
    assert "\n    bind 127.0.0.1:10080\n" in rendered()[0].text
    assert "stats auth" not in rendered()[0].text


def test_every_node_has_its_own_priority_role_and_router_id() -> None:
    texts = [render(THREE, node, Templates())[1].text for node in THREE.nodes]
    found = [re.findall(r"^    (?:router_id|state|priority) (\S+)$", text, re.MULTILINE) for text in texts]
    assert found == [
        ["lb-master-lb1", "MASTER", "120"],
        ["lb-backup-lb2", "BACKUP", "110"],
        ["lb-backup-lb3", "BACKUP", "109"],
    ]


def test_peers_of_a_node_are_all_the_others() -> None:
    text = render(THREE, THREE.nodes[1], Templates())[1].text
    block = re.search(r"unicast_peer {\n(.*?)    }", text, re.DOTALL)
    assert block
    assert block[1].split() == ["198.51.100.11", "198.51.100.13"]
    assert "unicast_src_ip 198.51.100.12\n" in text


def test_single_node_has_no_unicast_block_which_keepalived_would_refuse() -> None:
    alone = cluster(1)
    assert "unicast" not in render(alone, alone.nodes[0], Templates())[1].text


def test_keepalived_gets_what_it_wants_of_its_scripts() -> None:
    text = rendered()[1].text
    assert "enable_script_security" in text
    assert "script_user root" in text
    assert 'script "/usr/bin/killall -0 haproxy"' in text
    assert f"weight {vrrp.CHECK_WEIGHT}" in text


def test_documents_fatal_and_misleading_lines_are_not_rendered() -> None:
    text = rendered()[0].text
    assert not re.search(r"nbproc|ssl-hello-chk|mode http\n(?=.*kube-master)", text)
    assert "option httpchk GET /readyz\n    http-check expect status 200" in text
    assert text.count("check-ssl verify none") == 3


def test_proxy_files_of_all_nodes_are_the_same() -> None:
    assert len({render(THREE, node, Templates())[0].text for node in THREE.nodes}) == 1


@pytest.mark.parametrize(
    ("host", "expected"), [("198.51.100.1", True), ("2001:db8::1", True), ("api.example.org", False), ("1.2.3", False)]
)
def test_only_names_are_resolved_at_start(host: str, expected: bool) -> None:
    assert is_address(host) is expected
