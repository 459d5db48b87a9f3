"""What the environment file may contain, what is refused, and where its variables are said to come from."""

import grp
import os
import pwd
import shlex
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exlb_fab import environment
from exlb_fab.environment import Environment, find, read
from exlb_fab.errors import EnvironmentFileError

KNOWN = ("NODE_IPS", "VIP_IF", "MASTER_VIP", "KUBE_APISERVER", "STATS_PASSWORD")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "environment.sh") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


def sourced(text: str, *, known: Collection[str] = KNOWN, limit_seconds: float = 10) -> Environment:
    return read(write(text), known, limit_seconds=limit_seconds)


def refusal(text: str, *, limit_seconds: float = 10) -> EnvironmentFileError:
    with pytest.raises(EnvironmentFileError) as caught:
        sourced(text, limit_seconds=limit_seconds)
    return caught.value


def values(found: Environment) -> dict[str, tuple[str, ...]]:
    return {name: variable.values for name, variable in found.variables.items()}


def place(found: Environment, name: str) -> str:
    return str(found.variables[name].location)


# Which file


def test_the_option_wins_over_the_variable_which_wins_over_the_default(here: Path) -> None:
    for name in ("a.sh", "b.sh", "environment.sh"):
        write("", name)
    assert find(Path("a.sh"), {"EXLB_ENV": "b.sh"}, here) == Path("a.sh")
    assert find(None, {"EXLB_ENV": "b.sh"}, here) == Path("b.sh")
    assert find(None, {}, here) == Path("environment.sh")
    assert find(None, {"EXLB_ENV": ""}, here) == Path("environment.sh")


def test_a_file_of_another_directory_is_named_so_that_it_can_be_opened(here: Path) -> None:
    (here / "sub").mkdir()
    write("", "sub/environment.sh")
    assert find(None, {}, here / "sub") == here / "sub" / "environment.sh"


@pytest.mark.parametrize(
    ("option", "name", "hint"),
    [
        (None, "environment.sh", "exlb config --example > environment.sh, then edit its three required lines"),
        (Path("my file.sh"), "my file.sh", "exlb config --example > 'my file.sh', then edit its three required lines"),
    ],
)
def test_a_missing_file_is_answered_with_the_way_to_make_one(
    here: Path, option: Path | None, name: str, hint: str
) -> None:
    with pytest.raises(EnvironmentFileError) as caught:
        find(option, {}, here)
    assert (caught.value.message, caught.value.hint) == (f"{name}: there is no such file", hint)


# What a file may contain


def test_arrays_references_exports_substitutions_and_functions_are_understood(here: Path) -> None:
    found = sourced(
        """
        set -eux
        prefix=10.0.0
        vip() { local last=$1; declare -g MASTER_VIP=$prefix.$last; }
        declare -a NODE_IPS=("$prefix.1" $prefix.2)
        NODE_IPS+=("$(echo "$prefix.3")")
        vip 10
        export VIP_IF=eth0 KUBE_APISERVER="https://${MASTER_VIP}:8443"
        """
    )
    assert values(found) == {
        "NODE_IPS": ("10.0.0.1", "10.0.0.2", "10.0.0.3"),
        "VIP_IF": ("eth0",),
        "MASTER_VIP": ("10.0.0.10",),
        "KUBE_APISERVER": ("https://10.0.0.10:8443",),
    }
    assert [name for name, variable in found.variables.items() if variable.is_array] == ["NODE_IPS"]
    assert found.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "VIP_IF=eth0; set -e; [[ -f /nowhere ]] && true",
        "VIP_IF=eth0; return 3",
        "VIP_IF=eth0; exec >&-",
        "VIP_IF=eth0; trap 'true' EXIT; trap 'true' RETURN",
        "VIP_IF=eth0; IFS=0; set -f -u; set -o posix",
        "printf() { echo mine; }; VIP_IF=eth0",
        "set -- a b; VIP_IF=eth0; shift 2",
        "exec 3>&1 4>&1 5>&1 6>&1 7>&1 8>&1 9>&1; VIP_IF=eth0",
        "VIP_IF=eth0; readonly VIP_IF",
        "shopt -s extglob\ncase eth0 in @(eth0|eth1)) VIP_IF=eth0 ;; esac",
        "VIP_IF=eth0; PS4='+ '; unset BASH_XTRACEFD",
        "interface=eth0; declare -n VIP_IF=interface",
    ],
)
def test_whatever_a_file_does_to_its_shell_the_value_arrives(here: Path, text: str) -> None:
    assert values(sourced(text))["VIP_IF"] == ("eth0",)


def test_what_the_file_prints_is_taken_neither_for_a_value_nor_for_an_error(here: Path) -> None:
    found = sourced("echo VIP_IF=eth9; printf 'VIP_IF\\0001\\000eth9\\000'; echo x > /dev/stdout; VIP_IF=eth0")
    assert values(found) == {"VIP_IF": ("eth0",)}
    assert found.warnings == ()


def test_what_the_file_complains_about_is_a_warning(here: Path) -> None:
    found = sourced("echo first >&2\nno-such-command\necho $'\\e[31mred' > /dev/stderr\nVIP_IF=eth0")
    assert found.warnings == (
        "environment.sh: first",
        "environment.sh:2: no-such-command: command not found",
        "environment.sh: [31mred",
    )


def test_a_trace_turned_to_standard_error_does_not_show_a_password_as_a_warning(here: Path) -> None:
    assert sourced("BASH_XTRACEFD=2\nSTATS_PASSWORD=hush").warnings == ()


def test_the_file_sees_nothing_of_the_callers_environment_but_its_home(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIP_IF", "eth9")
    monkeypatch.setenv("NODE_IPS", "10.9.9.9")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert values(sourced("MASTER_VIP=${NODE_IPS-unset}:$HOME")) == {"MASTER_VIP": ("unset:/home/somebody",)}


def test_the_file_runs_in_the_callers_directory_and_has_nothing_to_read_from(here: Path) -> None:
    assert values(sourced("read -r VIP_IF; MASTER_VIP=$PWD")) == {"VIP_IF": ("",), "MASTER_VIP": (str(here),)}


def test_an_empty_array_is_set_and_a_declared_name_is_not(here: Path) -> None:
    assert values(sourced("NODE_IPS=(); declare -a VIP_IF; export MASTER_VIP")) == {"NODE_IPS": ()}


@pytest.mark.parametrize("text", ["NODE_IPS=([3]=a)", "declare -arx NODE_IPS=(a)", "set -o posix; NODE_IPS=(a)"])
def test_an_array_is_one_however_it_is_made(here: Path, text: str) -> None:
    found = sourced(text).variables["NODE_IPS"]
    assert (found.is_array, found.values) == (True, ("a",))


@pytest.mark.parametrize("text", ["VIP_IF='declare -a'", "declare -rx VIP_IF=a", "declare -u VIP_IF=aa"])
def test_a_text_is_not_taken_for_an_array(here: Path, text: str) -> None:
    assert not sourced(text).variables["VIP_IF"].is_array


def test_an_array_without_an_order_is_not_taken_for_an_array(here: Path) -> None:
    assert not sourced("declare -A NODE_IPS=([one]=10.0.0.1)").variables["NODE_IPS"].is_array


def test_unknown_names_are_listed_with_where_they_were_first_set(here: Path) -> None:
    found = sourced("NODES_IP=1\nNODES_IP=2\nread -r word <<< x\nfor i in 1; do :; done\nPATH=/bin\nunset NODES_IP")
    assert {name: str(location) for name, location in found.names.items()} == {
        "NODES_IP": "environment.sh:1",
        "word": "environment.sh:3",
        "i": "environment.sh:4",
        "PATH": "environment.sh:5",
    }
    assert {"HOME", "PATH", "HOSTNAME"} <= found.provided


def test_neither_an_environment_nor_its_variables_show_a_value_in_their_repr(here: Path) -> None:
    assert "hush" not in repr(sourced("STATS_PASSWORD=hush"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scalar=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    array=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=4),
)
def test_every_value_comes_back_as_it_was_written(here: Path, scalar: str, array: list[str]) -> None:
    lines = ["# first", f"STATS_PASSWORD={shlex.quote(scalar)}", f"NODE_IPS=({' '.join(map(shlex.quote, array))})"]
    Path("environment.sh").write_bytes("\n".join(lines).encode())
    found = read(Path("environment.sh"), KNOWN)
    assert values(found) == {"STATS_PASSWORD": (scalar,), "NODE_IPS": tuple(array)}
    assert place(found, "STATS_PASSWORD") == "environment.sh:2"
    assert place(found, "NODE_IPS") == f"environment.sh:{3 + scalar.count(chr(10))}"


def test_bytes_that_are_no_text_survive(here: Path) -> None:
    Path("environment.sh").write_bytes(b"VIP_IF='\xff'\n")
    assert values(read(Path("environment.sh"), KNOWN)) == {"VIP_IF": ("\udcff",)}


def test_bash_finds_the_file_itself_and_not_one_of_its_name_in_path(here: Path) -> None:
    assert values(read(write("VIP_IF=eth0", "ls"), KNOWN)) == {"VIP_IF": ("eth0",)}
    assert values(read(write("VIP_IF=eth1", "-x $(no) 'q'.sh"), KNOWN)) == {"VIP_IF": ("eth1",)}


# Line numbers


@pytest.mark.parametrize(
    ("text", "line", "source"),
    [
        ("\nVIP_IF=eth0", 2, "VIP_IF=eth0"),
        ("VIP_IF=eth0\nVIP_IF=eth1\n", 2, "VIP_IF=eth1"),
        ("VIP_IF=eth0; VIP_IF=eth1", 1, "VIP_IF=eth1"),
        ("\nexport A=1 VIP_IF='two words' B=2", 2, "VIP_IF='two words'"),
        ("\ndeclare -rx VIP_IF=$HOME", 2, "VIP_IF=$HOME"),
        ("\nreadonly VIP_IF=$(echo 'a )' \\))", 2, "VIP_IF=$(echo 'a )' \\))"),
        ("\nexport A=1 \\\n  VIP_IF=eth0 \\\n  B=2\n", 3, "VIP_IF=eth0"),
        ("\nVIP_IF='a\nb\nc'\n:", 2, "VIP_IF='a\nb\nc'"),
        ("VIP_IF=eth\nVIP_IF+=0", 2, "VIP_IF=eth\nVIP_IF+=0"),
        ("VIP_IF=no\nVIP_IF=(a)\nVIP_IF+=(b\n c)", 3, "VIP_IF=(a)\nVIP_IF+=(b\n c)"),
        ("\n\nVIP_IF=(\n  a # it's (one\n\n  b\n)\n:", 3, "VIP_IF=(\n  a # it's (one\n\n  b\n)"),
        ("\n(VIP_IF=sub)\nVIP_IF=eth0\nx=$(VIP_IF=sub; echo)", 3, "VIP_IF=eth0"),
        ("\nf() {\n  VIP_IF=eth0\n}\nf\n", 3, "VIP_IF=eth0"),
        ("\nread -r VIP_IF <<< eth0\n", 2, ""),
        ("\nprintf -v VIP_IF %s eth0\n", 2, ""),
        ("\nmapfile -t VIP_IF < <(echo a; echo b)", 2, ""),
        ('\n# VIP_IF=no\n: "${VIP_IF:=eth0}"', 3, "VIP_IF:="),
        ("\n{ set +x; }\nVIP_IF=eth0", 3, "VIP_IF=eth0"),
        ("PS4=x\n\nVIP_IF=eth0\n# VIP_IF=eth1", 3, "VIP_IF=eth0"),
        ("\nif true; then VIP_IF=eth0; else\nVIP_IF=eth1; fi", 2, "VIP_IF=eth0"),
        ("\nMY_VIP_IF=x; VIP_IF=eth0; --VIP_IF=2 || true", 2, "VIP_IF=eth0"),
    ],
)
def test_a_variable_is_located_where_its_last_assignment_starts(here: Path, text: str, line: int, source: str) -> None:
    variable = sourced(text).variables["VIP_IF"]
    assert (str(variable.location), variable.text) == (f"environment.sh:{line}", source)


def test_a_variable_set_in_no_visible_way_is_located_in_the_file(here: Path) -> None:
    found = sourced("set +x; name=VIP; printf -v ${name}_IF x")
    assert place(found, "VIP_IF") == "environment.sh"


def test_variables_of_a_sourced_file_are_located_there(here: Path) -> None:
    write("# common\nMASTER_VIP=10.0.0.1\nsource ./sub/net.sh\n", "common.sh")
    Path("sub").mkdir()
    write("VIP_IF=eth0\n", "sub/net.sh")
    found = sourced("\nsource common.sh\nNODE_IPS=($MASTER_VIP)\n")
    assert place(found, "MASTER_VIP") == "common.sh:2"
    assert place(found, "VIP_IF") == "sub/net.sh:1"
    assert place(found, "NODE_IPS") == "environment.sh:3"


def test_the_path_is_shown_as_the_user_gave_it(here: Path) -> None:
    write("VIP_IF=eth0")
    for given_path in (Path("environment.sh"), here / "environment.sh", Path("..") / here.name / "environment.sh"):
        assert place(read(given_path, KNOWN), "VIP_IF") == f"{given_path}:1"


# Files that do not end well


def test_a_file_that_calls_exit_is_an_error_with_its_line_and_status(here: Path) -> None:
    error = refusal("VIP_IF=eth0\n\nexit 3\n")
    assert error.message == "environment.sh:3: bash ended with status 3 before the end of the file"
    assert "exit" in str(error.hint)
    assert refusal("VIP_IF=eth0; exit 0").message.startswith("environment.sh:1: bash ended with status 0")


def test_a_file_that_dies_is_an_error_with_bashs_last_words(here: Path) -> None:
    assert refusal("set -e\nls /nowhere/at/all\nVIP_IF=eth0").message.splitlines() == [
        "environment.sh:2: bash ended with status 2 before the end of the file",
        "  environment.sh: ls: cannot access '/nowhere/at/all': No such file or directory",
    ]
    assert "environment.sh:2: nowhere: unbound variable" in refusal("set -u\nVIP_IF=$nowhere").message
    assert "killed by signal 9" in refusal("kill -9 $$").message


def test_a_syntax_error_is_reported_in_bashs_words_before_anything_runs(here: Path) -> None:
    error = refusal("touch ran\nVIP_IF=eth0\nNODE_IPS=((((\n")
    assert error.message.startswith("environment.sh:3: syntax error near unexpected token `('")
    assert error.hint == "bash -n environment.sh"
    assert not Path("ran").exists()
    assert "unexpected EOF" in refusal('VIP_IF="eth0\n').message


def test_a_password_in_a_line_that_bash_quotes_is_masked(here: Path) -> None:
    assert "`STATS_PASSWORD=********" in refusal("STATS_PASSWORD=geheim(\n").message


def test_a_syntax_error_in_a_sourced_file_is_an_error_too(here: Path) -> None:
    write("\nNODE_IPS=((((\n", "other.sh")
    assert refusal("source other.sh\nVIP_IF=eth0").message.startswith("other.sh:2: syntax error")


def test_dos_line_ends_are_named_as_such(here: Path) -> None:
    error = refusal("#!/bin/bash\r\nVIP_IF=eth0\r\n")
    assert "DOS line ends" in error.message
    assert error.hint == r"sed -i 's/\r$//' environment.sh"


@pytest.mark.parametrize("command", ["sleep 300", "x=$(sleep 300)", "while :; do :; done", "sleep 300 | cat"])
def test_a_file_that_takes_too_long_is_stopped_with_its_line(here: Path, command: str) -> None:
    started = time.monotonic()
    error = refusal(f"VIP_IF=eth0\n{command}\n", limit_seconds=0.2)
    assert time.monotonic() - started < 5
    assert error.message == "environment.sh:2: bash was stopped after 0.2 s, and this was its last line"


def test_a_file_that_does_more_than_is_kept_of_it_is_stopped_like_any_other(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "VIP_IF=eth0\nfor i in {1..99}; do :; done; exit 1"
    for kept_bytes in range(2000, 2070):  # wherever that cuts a record
        monkeypatch.setattr(environment, "_TRACE_BYTES", kept_bytes)
        assert refusal(text).message == "environment.sh:2: bash ended with status 1 before the end of the file"


@pytest.mark.parametrize("end", ["VIP_IF=eth0", "exit 1", "sleep 300"])
def test_no_child_of_the_file_outlives_the_reading(here: Path, end: str) -> None:
    path = write(f"sleep 300 &\necho $! > child\n{end}\n")
    started = time.monotonic()
    try:
        read(path, KNOWN, limit_seconds=0.5)
    except EnvironmentFileError:
        assert end != "VIP_IF=eth0"
    assert time.monotonic() - started < 5
    wait_until_gone(int(Path("child").read_text()))


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":  # dead; whether anybody collects it is for the init process of this machine to say
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} is still there")


def test_endless_complaints_end_with_the_limit_and_are_cut(here: Path) -> None:
    error = refusal("VIP_IF=eth0; yes enough >&2", limit_seconds=0.2)
    assert 2 <= len(error.message.splitlines()) <= 20


def test_a_host_without_bash_is_told_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "bash is not installed" in refusal("VIP_IF=eth0").message


# Files that are not executed


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o755, 0o444])
def test_a_file_that_only_its_owner_may_write_is_read(here: Path, mode: int) -> None:
    path = write("VIP_IF=eth0")
    path.chmod(mode)
    assert values(read(path, KNOWN)) == {"VIP_IF": ("eth0",)}


@pytest.mark.parametrize("mode", [0o646, 0o666, 0o602, 0o777])
def test_a_file_that_everyone_may_write_is_not_executed(here: Path, mode: int) -> None:
    path = write("touch ran")
    path.chmod(mode)
    with pytest.raises(EnvironmentFileError, match="will not be executed: everyone may write it") as caught:
        read(path, KNOWN)
    assert caught.value.hint == "chmod go-w environment.sh"
    assert not Path("ran").exists()


OWNER = pwd.struct_passwd(("ann", "x", 1234, 1234, "", "/home/ann", "/bin/bash"))
OTHER = pwd.struct_passwd(("bob", "x", 1235, 1235, "", "/home/bob", "/bin/bash"))
OTHER_IN_GROUP = pwd.struct_passwd(("bob", "x", 1235, 1234, "", "/home/bob", "/bin/bash"))
OWNER_ELSEWHERE = pwd.struct_passwd(("ann", "x", 1234, 100, "", "/home/ann", "/bin/bash"))
PRIVATE = grp.struct_group(("ann", "x", 1234, []))
WITH_OWNER = grp.struct_group(("ann", "x", 1234, ["ann"]))
WITH_MEMBER = grp.struct_group(("ann", "x", 1234, ["bob"]))
NAMED_OTHERWISE = grp.struct_group(("staff", "x", 1234, []))


def pretend(
    monkeypatch: pytest.MonkeyPatch, users: Collection[pwd.struct_passwd], group: grp.struct_group, *, acl: bytes = b""
) -> None:
    """Let the file's owner be the first of the users, and its group the given one."""

    def status(_: Path) -> os.stat_result:
        return os.stat_result((0o100664, 0, 0, 1, 1234, 1234, 0, 0, 0, 0))

    monkeypatch.setattr(Path, "stat", status)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: next(iter(users)))
    monkeypatch.setattr(pwd, "getpwall", lambda: list(users))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: group)
    monkeypatch.setattr(os, "getxattr", lambda path, name: acl)


@pytest.mark.parametrize("group", [PRIVATE, WITH_OWNER])
def test_a_file_that_the_owners_private_group_may_write_is_accepted(
    monkeypatch: pytest.MonkeyPatch, group: grp.struct_group
) -> None:
    pretend(monkeypatch, [OWNER, OTHER], group)
    environment.refuse_unsafe(Path("environment.sh"))


@pytest.mark.parametrize(
    ("users", "group"),
    [
        ([OWNER, OTHER], WITH_MEMBER),
        ([OWNER, OTHER], NAMED_OTHERWISE),
        ([OWNER, OTHER_IN_GROUP], PRIVATE),
        ([OWNER_ELSEWHERE, OTHER], PRIVATE),
    ],
)
def test_a_file_that_a_shared_group_may_write_is_refused(
    monkeypatch: pytest.MonkeyPatch, users: Collection[pwd.struct_passwd], group: grp.struct_group
) -> None:
    pretend(monkeypatch, users, group)
    with pytest.raises(EnvironmentFileError, match=f"group {group.gr_name} may write it") as caught:
        environment.refuse_unsafe(Path("environment.sh"))
    assert caught.value.hint == "chmod go-w environment.sh"


def test_an_access_control_list_makes_a_private_group_a_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [OWNER], PRIVATE, acl=b"\x02")
    with pytest.raises(EnvironmentFileError, match="its access control list"):
        environment.refuse_unsafe(Path("environment.sh"))


def test_a_group_without_a_name_is_a_shared_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> grp.struct_group:
        raise KeyError

    monkeypatch.setattr(grp, "getgrgid", unknown)
    path = write("")
    path.chmod(0o664)
    with pytest.raises(EnvironmentFileError, match=f"group {path.stat().st_gid} may write it"):
        read(path, KNOWN)


def test_what_is_no_regular_file_is_refused_without_being_opened(here: Path) -> None:
    with pytest.raises(EnvironmentFileError, match="is a directory, not a file"):
        read(here, KNOWN)
    os.mkfifo("pipe")
    with pytest.raises(EnvironmentFileError, match="is not a regular file"):
        read(Path("pipe"), KNOWN)
    with pytest.raises(EnvironmentFileError, match="cannot be read: No such file"):
        read(Path("nowhere"), KNOWN)


def test_a_file_that_may_not_be_read_is_a_clear_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refusal("").message == "environment.sh: cannot be read: Permission denied"


def test_the_program_for_bash_passes_shellcheck() -> None:
    program = environment._PROGRAM
    words = [str(Path(sys.executable).with_name("shellcheck")), "-s", "bash", "-e", "SC1090", "-"]
    found = subprocess.run(words, input=program, text=True, capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")
