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

"""What the appliance asks an exporter before it is open.

An exporter is a folder with all that belongs to it. Its :class:`Plugin` is
an entry point of the group ``acme_appliance.exporters``, whose name is what
``[nfs] exporter`` says. No other module knows the names.
"""

import abc
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Final

from oslo_config import cfg

from acme_appliance.exporters import base

#: The exporter of a configuration that names none.
DEFAULT: Final = "kernel"


class Plugin(abc.ABC):
    """One kind of exporter. Made without arguments, and has no state."""

    #: One line for the configuration's sample.
    help: ClassVar[str]
    #: The exporter's own options in the group ``nfs``.
    options: ClassVar[Sequence[cfg.Opt]] = ()

    @abc.abstractmethod
    def open(self, root: str, options: Mapping[str, Any]) -> base.Exporter:
        """The exporter. Does not look at the server: one that cannot be
        used says so by :meth:`base.Exporter.check`.

        :param root: the directory that clients see as ``/``.
        :param options: the values of the plugin's options.
        """
