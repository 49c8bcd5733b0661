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
from typing import Any
from typing import TYPE_CHECKING

from cinder import exception
from cinder import objects
from oslo_config import cfg

if TYPE_CHECKING:
    from acme_cinder import settings

_DRIVER = "acme_cinder.driver.acmeNfsDriver"


class Wrong(Exception):
    """The configuration cannot be used; the message has the reason."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """One section of cinder.conf. Its name is also that of its mounts."""

    name: str
    settings: settings.DriverSettings


def load(files: Sequence[str], names: Sequence[str]) -> list[Backend]:
    """Load the back ends of this driver.

    :param files: empty: Cinder's default files.
    :param names: of sections; empty: all in ``enabled_backends``.
    :raises Wrong: there is no back end, or one is misconfigured.
    """
    objects.register_all()
    # Cinder's modules register their options when they are imported.
    from cinder.common import config  # noqa: F401
    from cinder.volume import configuration
    from cinder.volume import manager

    from acme_cinder import opts
    from acme_cinder import settings as options

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
        section.append_config_values(opts.DRIVER_OPTS)
        try:
            found.append(Backend(name, options.read(section)))
        except exception.InvalidConfigurationValue as error:
            raise Wrong(f"[{name}] {error}") from error
    if not found:
        raise Wrong(
            f"no section of enabled_backends has volume_driver = {_DRIVER};"
            " name one with --backend"
        )
    return found
