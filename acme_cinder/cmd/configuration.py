# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Cinder's configuration for commands that run beside its services."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import logging
import shlex
from typing import Any
from typing import TYPE_CHECKING

from cinder import exception
from cinder import objects
from oslo_config import cfg

if TYPE_CHECKING:
    from acme_cinder import settings

LOG = logging.getLogger(__name__)
_CALL_SECONDS = 30.0
_DRIVER = "acme_cinder.driver.acmeNfsDriver"


class Wrong(Exception):
    """The configuration cannot be used; the message has the reason."""


@dataclasses.dataclass(frozen=True)
class Section:
    """One section of cinder.conf that has this driver.

    :ivar name: also of the back end's mounts.
    :ivar options: Cinder's configuration of it.
    """

    name: str
    options: Any

    @property
    def host(self) -> str:
        """The back end's host, as cinder-volume forms it (cmd/volume.py)."""
        host = _registered("backend_host", self.name) or cfg.CONF.host
        return f"{host}@{self.name}"

    @property
    def cluster(self) -> str | None:
        """Likewise; None without a cluster."""
        name = (_registered("cluster") or "").strip()
        return f"{name}@{self.name}" if name else None


def _registered(name: str, group: str | None = None) -> str | None:
    """An option that only the module of cinder-volume's command registers;
    importing that would start eventlet."""
    try:
        cfg.CONF.register_opt(cfg.StrOpt(name), group)
    except cfg.DuplicateOptError:
        LOG.debug("%s is registered", name)
    where = cfg.CONF if group is None else cfg.CONF[group]
    value: str | None = where[name]
    return value


@dataclasses.dataclass(frozen=True)
class Backend:
    """A section with its settings, which are valid."""

    section: Section
    settings: settings.DriverSettings

    @property
    def name(self) -> str:
        return self.section.name

    @property
    def call_seconds(self) -> float:
        """Time limit of a call: somebody waits at a terminal."""
        return min(self.settings.deadline_seconds, _CALL_SECONDS)


def sections(files: Sequence[str], names: Sequence[str]) -> list[Section]:
    """Load the configuration; return the sections of this driver.

    :param files: empty: Cinder's default files.
    :param names: of sections; empty: all in ``enabled_backends``.
    :raises Wrong: there is no back end.
    """
    objects.register_all()
    # Cinder's modules register their options when they are imported.
    from cinder.common import config  # noqa: F401
    from cinder.volume import configuration
    from cinder.volume import driver
    from cinder.volume import manager

    from acme_cinder import opts

    arguments = [word for file in files for word in ("--config-file", file)]
    try:
        cfg.CONF(arguments, project="cinder")
    except cfg.Error as error:
        raise Wrong(f"cinder.conf: {error}") from error
    found = []
    for name in names or cfg.CONF.enabled_backends or ():
        section: Any = configuration.Configuration(
            manager.volume_backend_opts, config_group=name
        )
        if section.volume_driver != _DRIVER:
            if names:
                raise Wrong(f"[{name}] volume_driver is not {_DRIVER}")
            continue
        section.append_config_values(
            [*driver.volume_opts, *opts.DRIVER_OPTS, *opts.UNUSED_OPTS]
        )
        found.append(Section(name, section))
    if not found:
        raise Wrong(
            f"no section of enabled_backends has volume_driver = {_DRIVER};"
            " name one with --backend"
        )
    return found


def load(files: Sequence[str], names: Sequence[str]) -> list[Backend]:
    """Load the back ends of this driver.

    :raises Wrong: there is no back end, or one is misconfigured.
    """
    from acme_cinder import settings as options

    found = []
    for section in sections(files, names):
        try:
            found.append(Backend(section, options.read(section.options)))
        except exception.InvalidConfigurationValue as error:
            raise Wrong(f"[{section.name}] {error}") from error
    return found


def prepare_commands() -> None:
    """Like cinder-volume at its start (Cinder, cmd/volume.py)."""
    from cinder import utils
    import os_brick
    from oslo_privsep import priv_context

    os_brick.setup(cfg.CONF)
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))


def shorten_database_waits() -> None:
    """Cinder's services try for minutes to reach the database; a person at a
    terminal wants to hear of it."""
    cfg.CONF.set_override("max_retries", 2, "database")
    cfg.CONF.set_override("retry_interval", 1, "database")
