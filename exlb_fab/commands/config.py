"""config: what exlb understood of the environment file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import Report


class SettingRow(BaseModel):
    """One variable: its value (secrets masked) and where it comes from."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: str
    source: str


class ConfigReport(Report):
    """All variables that exlb knows."""

    path: str
    settings: tuple[SettingRow, ...]


def config(cluster: Cluster) -> ConfigReport:
    """Return every variable as it was understood."""
    return ConfigReport(
        path=str(cluster.path),
        settings=tuple(
            SettingRow(name=setting.name, value=setting.value, source=setting.source) for setting in cluster.settings
        ),
    )
