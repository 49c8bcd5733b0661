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

"""What the appliance says about itself."""

from collections.abc import Mapping
import dataclasses
import datetime
import email.utils
from typing import Any

from acme_client import transport


@dataclasses.dataclass(frozen=True)
class Versions:
    """The versions of the API, and the appliance's clock.

    :ivar ids: such as ``v1``.
    :ivar time: when the appliance answered (RFC 9110, Date), to the second;
        None: it did not say.
    """

    ids: tuple[str, ...]
    time: datetime.datetime | None

    @classmethod
    def from_reply(cls, reply: transport.Reply) -> "Versions":
        """:raises KeyError, TypeError, ValueError: it is no such list."""
        listed = reply.json()["versions"]
        if not isinstance(listed, list):
            raise TypeError("versions: a list expected")
        return cls(
            tuple(str(each["id"]) for each in listed),
            _time(reply.headers.get("Date", "")),
        )


@dataclasses.dataclass(frozen=True)
class System:
    """The appliance's identity.

    :ivar everything: the whole answer, for people.
    """

    id: str
    name: str
    product: str
    version: str
    health: str
    everything: Mapping[str, Any]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "System":
        texts = {
            name: body[name]
            for name in ("id", "name", "product", "version", "health")
        }
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError(f"strings expected: {', '.join(texts)}")
        return cls(**texts, everything=dict(body))


def _time(text: str) -> datetime.datetime | None:
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
