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

"""Three interfaces that Cinder has merged into BaseVD.

Until the Queens release Cinder had classes with these names for the features
of a driver beyond the minimum. If the installed Cinder still has one, it is
used.
"""

from __future__ import annotations

import abc
from typing import Any

from cinder import objects
from cinder.volume import driver


class _ExtendVD(abc.ABC):
    """Volumes can be extended."""

    @abc.abstractmethod
    def extend_volume(self, volume: objects.Volume, new_size: int) -> None:
        """Extend a volume, attached or not, to ``new_size`` GiB."""


class _LocalVD(abc.ABC):
    """A volume is a local file when its share is mounted."""

    @abc.abstractmethod
    def local_path(self, volume: objects.Volume) -> str:
        """The path of the volume's file when its share is mounted."""


class _TransferVD(abc.ABC):
    """Volumes can be transferred to another project."""

    @abc.abstractmethod
    def accept_transfer(
        self,
        context: Any,
        volume: objects.Volume,
        new_user: str,
        new_project: str,
    ) -> dict[str, Any] | None:
        """Do the back end's part; return a model update."""


ExtendVD: Any = getattr(driver, "ExtendVD", _ExtendVD)
LocalVD: Any = getattr(driver, "LocalVD", _LocalVD)
TransferVD: Any = getattr(driver, "TransferVD", _TransferVD)
