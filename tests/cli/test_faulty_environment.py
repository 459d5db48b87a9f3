"""What the operator sees of an environment file with faults."""

from pathlib import Path

from typer.testing import CliRunner

from exlb_fab.cli.app import app


def test_the_warnings_that_may_explain_a_fault_are_shown_above_it(tmp_path: Path) -> None:
    path = tmp_path / "environment.sh"
    path.write_text("NODE_IPS=($(get-ips))\nVIP_IF=eth0\nMASTER_VIP=10.0.0.10\nBALLANCE=source\n", encoding="utf-8")
    path.chmod(0o600)
    ran = CliRunner().invoke(app, ["config", "--env", str(path)])
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert ran.stderr.splitlines() == [
        f"warning: {path}:1: get-ips: command not found",
        f"warning: {path}:4: BALLANCE: exlb does not know this name; did you mean BALANCE?",
        f"error: {path}:1: NODE_IPS: is empty; write NODE_IPS=(ADDRESS ...)",
    ]
