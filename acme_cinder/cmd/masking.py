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

"""Keep secrets out of what is given away."""

from __future__ import annotations

import base64
from collections.abc import Iterable
import re
from typing import Any
from typing import Final

from oslo_config import cfg
from oslo_utils import strutils

MASK: Final = "***"
_SECRET_NAME: Final = re.compile(r"passw|secret|token|credential|_key$|^key$")
_IN_URL: Final = re.compile(r"(://[^:/@\s]*:)([^@/\s]+)(@)")
_BEARER: Final = re.compile(r"(?i)\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~-]+")
_SHORTEST: Final = 4
_NO_SECRET: Final = frozenset({"true", "false", "none", "auto"})


class Masking:
    """Masks the secrets of configuration files, and what looks like one.

    :param files: all files of Cinder's configuration.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._secrets: set[str] = set()
        for path in files:
            self._learn(path)

    def _learn(self, path: str) -> None:
        sections: dict[str, dict[str, list[Any]]] = {}
        cfg.ConfigParser(path, sections).parse()
        for options in sections.values():
            for name, values in options.items():
                for value in map(str, values):
                    if _SECRET_NAME.search(name.lower()):
                        self.add(value)
                    for found in _IN_URL.finditer(value):
                        self.add(found[2])
            users = options.get("nas_user", [])
            passwords = options.get("nas_password", [])
            for user, password in zip(users, passwords, strict=False):
                pair = f"{user}:{password}".encode()
                self.add(base64.b64encode(pair).decode())

    def add(self, secret: str) -> None:
        if len(secret) >= _SHORTEST and secret.lower() not in _NO_SECRET:
            self._secrets.add(secret)

    def clean(self, text: str) -> str:
        # The longest first, because one secret may contain another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        text = _IN_URL.sub(rf"\1{MASK}\3", text)
        text = _BEARER.sub(rf"\1 {MASK}", text)
        return str(strutils.mask_password(text, secret=MASK))
