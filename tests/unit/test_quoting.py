"""Values stay data: any password is one word of haproxy.cfg, and is masked wherever the text is shown."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exlb_fab.cluster import Cluster, Secret
from exlb_fab.proxies.haproxy import mask, quote
from exlb_fab.rendering import File, Target, Templates, mask_keepalived, render
from tests.fake import STATS, cluster

PASSWORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128).filter(str.isprintable)
SAFE = re.compile(r"(?:[A-Za-z0-9_.,:/@+=-]|\\x[0-9a-f]{2})+")
TEMPLATES = Templates()


def words(line: str) -> list[bytes]:
    """Split a line the way haproxy does, outside of quotes, which are not expected here.

    Written from its configuration manual, 2.2 "Quoting and escaping", and not from exlb's own quote().
    """
    found, word, at = [], b"", 0
    while at < len(line):
        sign = line[at]
        if sign == "#":
            break
        assert sign not in "\"'", f"quotes are not used: {line!r}"
        if sign in " \t":
            if word:
                found.append(word)
            word, at = b"", at + 1
        elif sign == "\\" and line[at + 1] == "x":
            word, at = word + bytes([int(line[at + 2 : at + 4], 16)]), at + 4
        elif sign == "\\":
            word, at = word + {"n": b"\n", "r": b"\r", "t": b"\t"}.get(line[at + 1], line[at + 1].encode()), at + 2
        else:
            word, at = word + sign.encode(), at + 1
    return [*found, word] if word else found


def with_password(password: str) -> Cluster:
    return replace(cluster(), stats=replace(STATS, password=Secret(password)))


def proxy_file(password: str) -> File:
    secret = with_password(password)
    return render(secret, secret.nodes[0], TEMPLATES, Target()).files[0]


@given(PASSWORDS)
@example(r'two words "quoted" \'single\' #hash $HOME \x41 é')
@example("stats auth admin:other")
@example("{{ 7 * 7 }}{% raw %}")
def test_any_password_is_one_word_and_comes_back_from_it(password: str) -> None:
    quoted = quote(password)
    assert SAFE.fullmatch(quoted)
    assert words(f"    stats auth admin:{quoted} # end") == [b"stats", b"auth", f"admin:{password}".encode()]


@given(PASSWORDS)
@example("\\")
@example("#")
def test_any_password_is_rendered_to_one_line_and_changes_no_other(password: str) -> None:
    plain, file = proxy_file("x"), proxy_file(password)
    lines = file.text.split("\n")
    (at,) = [number for number, line in enumerate(lines) if "stats auth" in line]
    assert words(lines[at]) == [b"stats", b"auth", f"admin:{password}".encode()]

    def others(text: str, digest: str) -> list[str]:
        rest = text.replace(digest, "").split("\n")
        return rest[:at] + rest[at + 1 :]

    assert others(file.text, file.digest) == others(plain.text, plain.digest)


@given(PASSWORDS, PASSWORDS)
def test_masked_text_and_masked_diff_do_not_depend_on_the_password(one: str, other: str) -> None:
    old, new = proxy_file(one), proxy_file(other)

    def anonymous(text: str) -> str:
        return text.replace(old.digest, "-").replace(new.digest, "-")

    masked = anonymous(old.mask(old.text))
    assert masked == anonymous(new.mask(new.text))
    assert "    stats auth admin:********\n" in masked
    lines = difflib.unified_diff(old.text.splitlines(), new.text.splitlines(), lineterm="", n=50)
    shown = [line for line in new.mask("\n".join(lines)).split("\n") if "stats auth" in line]
    assert {line[1:] for line in shown} <= {"    stats auth admin:********"}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("stats auth admin:geheim", "stats auth admin:********"),
        ("\tstats  auth\tadmin:geheim # geheim", "\tstats  auth\tadmin:********"),
        (r"stats auth admin:ge\ heim", "stats auth admin:********"),
        ('stats auth "admin:ge heim"', "stats auth ********"),
        ('stats "auth" admin:"geheim', 'stats "auth" admin:********'),
        ("stats auht admin:geheim", "stats auht admin:********"),
        ("user ann inscure-password geheim", "user ann inscure-password ********"),
        ("stats admin if { src 10.0.0.0/8 }", "stats admin if { src 10.0.0.0/8 }"),
        (r"stats auth ad\ min:geheim", "stats auth ********"),
        ("-    stats auth a.b@c:x", "-    stats auth a.b@c:********"),
        ("user ann insecure-password geheim", "user ann insecure-password ********"),
        ("user ann password $6$geheim groups a", "user ann password ********"),
    ],
)
def test_passwords_that_somebody_wrote_by_hand_are_masked(line: str, shown: str) -> None:
    assert mask(f"before\n{line}\nafter") == f"before\n{shown}\nafter"


@pytest.mark.parametrize("line", ["stats auth", "stats uri /status", "user haproxy", "# stats", ""])
def test_lines_without_a_password_are_shown_as_they_are(line: str) -> None:
    assert mask(f"before\n{line}\nafter") == f"before\n{line}\nafter"


@pytest.mark.parametrize("line", ["auth_pass geheim", "  auth_pass\tgeheim", 'auth_pass "ge heim"'])
def test_vrrp_passwords_are_masked(line: str) -> None:
    masked = mask_keepalived(f"auth_type PASS\n{line}\n}}\n")
    assert "heim" not in masked
    assert masked.startswith("auth_type PASS\n")
    assert masked.endswith("********\n}\n")


@pytest.mark.parametrize("text", ["{}", "{!s}", "{!r}", "{:>20}", "{0.__class__}"])
def test_secret_is_in_no_format(text: str) -> None:
    assert "geheim" not in text.format(Secret("geheim"))
    assert "geheim" not in repr(with_password("geheim"))
