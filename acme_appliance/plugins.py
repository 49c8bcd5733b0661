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

"""The installed engines and exporters, found by entry point.

Any package can provide some. One that cannot be loaded is an error only for a
configuration that uses it, and the message says why.
"""

from collections.abc import Mapping
import dataclasses
import functools
import importlib.metadata
from typing import Any
from typing import Final

from oslo_config import types
from stevedore import extension

from acme_appliance.engines import plugin as engine_plugin
from acme_appliance.exporters import plugin as exporter_plugin

ENGINES: Final = "acme_appliance.engines"
EXPORTERS: Final = "acme_appliance.exporters"

_CLASSES: Final = {
    ENGINES: engine_plugin.Plugin,
    EXPORTERS: exporter_plugin.Plugin,
}


class PluginError(Exception):
    """No plugin is installed; the text has the solution."""


def engines() -> Mapping[str, engine_plugin.Plugin]:
    """Engines by name: the values of a pool's option ``engine``."""
    return _installed(ENGINES).usable


def exporters() -> Mapping[str, exporter_plugin.Plugin]:
    """Exporters by name: the values of ``[nfs] exporter``."""
    return _installed(EXPORTERS).usable


class Name(types.String):
    """The type of options whose value is the name of a plugin."""

    def __init__(self, group: str) -> None:
        found = _installed(group)
        super().__init__(
            choices=[(name, each.help) for name, each in found.usable.items()]
        )
        #: Installed plugins that cannot be used, with the reason.
        self.unusable = found.unusable


@dataclasses.dataclass
class _Plugins:
    usable: dict[str, Any] = dataclasses.field(default_factory=dict)
    unusable: dict[str, str] = dataclasses.field(default_factory=dict)


@functools.cache
def _installed(group: str) -> _Plugins:
    """:raises PluginError: there is no usable one."""
    found = _Plugins()

    def note(
        manager: object,
        entry_point: importlib.metadata.EntryPoint,
        error: BaseException,
    ) -> None:
        found.unusable[entry_point.name] = (
            f"{entry_point.value} cannot be loaded:"
            f" {type(error).__name__}: {error}"
        )

    manager: extension.ExtensionManager[Any] = extension.ExtensionManager(
        group, invoke_on_load=True, on_load_failure_callback=note
    )
    for each in sorted(manager, key=lambda each: str(each.name)):
        _add(found, each, _CLASSES[group])
    for name in found.unusable:
        found.usable.pop(name, None)
    if not found.usable:
        raise PluginError(
            f"no entry point of the group {group} can be used, although"
            " acme-cinder provides some: reinstall it (pip install -e . in a"
            " checkout)"
        )
    return found


def _add(
    found: _Plugins, each: "extension.Extension[Any]", wanted: type
) -> None:
    if not isinstance(each.obj, wanted):
        found.unusable[each.name] = (
            f"{each.entry_point.value} is not a"
            f" {wanted.__module__}.{wanted.__qualname__}"
        )
        return
    other = found.usable.setdefault(each.name, each.obj)
    if other is not each.obj:
        found.unusable[each.name] = (
            f"several installed packages provide it: {_place(other)} and"
            f" {_place(each.obj)}; remove one"
        )


def _place(plugin: object) -> str:
    return f"{type(plugin).__module__}:{type(plugin).__qualname__}"
