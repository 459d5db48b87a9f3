"""What a person reads of a lab."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exlb_fab.lab import LabStatus
from exlb_fab.report.tables import titled


def lab_table(status: LabStatus) -> RenderableType:
    """Return the nodes of a lab and how each is."""
    title = f"Lab {status.name}, VIP {status.vip}"
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("node", "address", "release", "power", "network", "ssh", "apiserver"):
        table.add_column(column)
    for node in status.nodes:
        running = node.state == "running"
        table.add_row(
            Text(node.name, "cyan"),
            node.address,
            node.release,
            Text(node.state, "green" if running else "bold red"),
            Text(
                "cut off" if node.partitioned else "plugged in" if running else "-", "red" if node.partitioned else ""
            ),
            Text("answers" if node.ssh else "silent", "green" if node.ssh else "bold red"),
            Text(node.apiserver, "green" if node.apiserver == "ok" else "yellow"),
        )
    return titled(title, table)


def lab_ready(status: LabStatus) -> RenderableType:
    """Return the table, and what to type next."""
    option = "" if status.name == "default" else f"--name {status.name} "
    text = Text("next: ", "bold")
    text.append(f"exlb lab run {option}-- exlb deploy")
    return Group(lab_table(status), text)
