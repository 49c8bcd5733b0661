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

"""Credentials of the client."""

import base64
import dataclasses

from acme_client import errors


@dataclasses.dataclass(frozen=True)
class BearerToken:
    """A long-lived token, sent with every request."""

    token: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if not _printable(self.token):
            raise errors.ConfigurationError(
                "the API token is empty or has white space or characters "
                "in it that no token has"
            )

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.token,)

    @property
    def authorization(self) -> str:
        return f"Bearer {self.token}"


@dataclasses.dataclass(frozen=True)
class BasicLogin:
    """A name and a secret, sent only to log in for a session token."""

    user: str
    password: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if not self.user or ":" in self.user:
            raise errors.ConfigurationError(
                "the API user is empty or has a colon in it"
            )
        if not self.password:
            raise errors.ConfigurationError("the API password is empty")

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.password, self._encoded)

    @property
    def authorization(self) -> str:
        return f"Basic {self._encoded}"

    @property
    def _encoded(self) -> str:
        pair = f"{self.user}:{self.password}".encode()
        return base64.b64encode(pair).decode("ascii")


Credentials = BearerToken | BasicLogin


def _printable(token: str) -> bool:
    return bool(token) and all("!" <= char <= "~" for char in token)
