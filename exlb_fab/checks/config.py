"""Can each node do what the environment file asks for, and does nobody else say something as well?"""

from __future__ import annotations

from exlb_fab.checks.base import Register, Verdict, View, passed, warned
from exlb_fab.cluster import Node

CHECKS = Register()


@CHECKS.per_node("config.unmanaged", "The proxy reads no file but exlb's")
def unmanaged(view: View, node: Node) -> Verdict:
    """Other files are a warning."""
    found = view.facts(node).unmanaged
    if found:
        return warned(f"{view.proxy.name} also reads {', '.join(found)}", hint="move what they say to EXTRA_LISTENERS")
    return passed("yes")


@CHECKS.per_node("config.as-asked", "The node can do what the environment file asks for")
def as_asked(view: View, node: Node) -> Verdict:
    """What its versions cannot is a warning."""
    notes = view.desired[node].notes if node in view.desired else ()
    hint = "nothing where that will do; else another value in environment.sh, or newer versions: exlb install --upgrade"
    return warned("; ".join(notes), hint=hint) if notes else passed("yes")
