"""config: what exlb understood of the environment file, and what failures cost clients with it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster, Track
from exlb_fab.commands.base import Report


class SettingRow(BaseModel):
    """One variable: its value (secrets masked) and where it comes from."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: str
    source: str


class OutageRow(BaseModel):
    """How long clients are without service at worst; `seconds` is None where it does not end by itself."""

    model_config = ConfigDict(frozen=True)

    event: str
    seconds: float | None


class ConfigReport(Report):
    """All variables that exlb knows, and the worst outages by the model (docs/vrrp.md)."""

    path: str
    settings: tuple[SettingRow, ...]
    outages: tuple[OutageRow, ...]


def config(cluster: Cluster) -> ConfigReport:
    """Return every variable as it was understood."""
    return ConfigReport(
        path=str(cluster.path),
        settings=tuple(
            SettingRow(name=setting.name, value=setting.value, source=setting.source) for setting in cluster.settings
        ),
        outages=tuple(
            OutageRow(event=event, seconds=None if math.isinf(seconds) else round(seconds, 2))
            for event, seconds in _outages(cluster)
        ),
    )


def _outages(cluster: Cluster) -> Iterator[tuple[str, float]]:
    """Yield what can happen to the holder, and the longest that it costs."""
    group, settings = cluster.group, cluster.vrrp

    def by(track: Track) -> vrrp.Outages:
        return vrrp.outages(group, settings.timing(track))

    found = by(settings.track[0])
    yield "the proxy of the holder dies", min(by(track).proxy_dead for track in settings.track)
    if "process" in settings.track:
        yield "the same where a script has to check the process (a container)", by("script").proxy_dead
    yield "the holder dies", found.node_dead
    yield "the holder is cut off", found.partition
    yield "the holder is there again after it was cut off", found.partition_healed
    yield "keepalived of the holder is stopped", found.keepalived_stopped
