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

"""The interface of an exporter's plugin.

An exporter is a folder with all its code. Its :class:`Plugin` is an entry
point of the group ``acme_appliance.exporters``. The entry point's name is the
value of ``[nfs] exporter``. No other module knows these names.
"""

import abc
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Final

from oslo_config import cfg

from acme_appliance.exporters import base

#: The default of ``[nfs] exporter``.
DEFAULT: Final = "kernel"


class Plugin(abc.ABC):
    """One type of exporter. Stateless, and constructed without arguments."""

    #: One line for the sample configuration.
    help: ClassVar[str]
    #: The exporter's own options in the group ``nfs``.
    options: ClassVar[Sequence[cfg.Opt]] = ()

    @abc.abstractmethod
    def open(self, root: str, options: Mapping[str, Any]) -> base.Exporter:
        """Return the exporter. Does not access the server:
        :meth:`base.Exporter.check` reports problems.

        :param root: the directory that clients see as ``/``.
        :param options: the values of the plugin's options.
        """
