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

"""Keeps secrets out of log lines, exceptions and representations."""

import re

from oslo_utils import strutils

MASK = "***"

#: Anything that looks like a credential.
_PATTERNS = (
    re.compile(r"(?i)\b(Bearer|Basic)(\s+)[A-Za-z0-9+/=._~-]+"),
    re.compile(r"\bacme_[A-Za-z0-9_-]{20,}"),
)
#: Shorter secrets would mask ordinary words.
_SHORTEST_SECRET = 4


class Redactor:
    """Masks known secrets, and anything that looks like one.

    Thread-safe: the tuple is replaced, never changed.
    """

    def __init__(self, *secrets: str):
        self._secrets: tuple[str, ...] = ()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Mask ``secret``, too."""
        if len(secret) < _SHORTEST_SECRET or secret in self._secrets:
            return
        # The longest first, because one secret may contain another.
        self._secrets = tuple(
            sorted({*self._secrets, secret}, key=len, reverse=True)
        )

    def replace(self, old: str, new: str) -> None:
        """Replace a session token by the next one."""
        self._secrets = tuple(s for s in self._secrets if s != old)
        self.add(new)

    def clean(self, text: object) -> str:
        cleaned = str(text)
        for secret in self._secrets:
            cleaned = cleaned.replace(secret, MASK)
        cleaned = _PATTERNS[0].sub(rf"\1\2{MASK}", cleaned)
        cleaned = _PATTERNS[1].sub(MASK, cleaned)
        return strutils.mask_password(cleaned, secret=MASK)
