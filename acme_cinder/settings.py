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

"""The configuration, read once, checked, and typed."""

from collections.abc import Iterable
import dataclasses
import os
import re
from typing import Any
import urllib.parse

from cinder import exception
from oslo_config import cfg

from acme_cinder import addresses
from acme_cinder import client

#: What the volume file's name may be: what the API allows.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@%+=:,-]{0,254}")
_VERSION_OPTION = re.compile(r"(nfsvers|vers)=|v[234](\.\d)?$")
_SWITCH = {"auto": True, "true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the operator wants.

    :ivar verify: as the client takes it.
    :ivar mount_options: without ``-o``; empty for none.
    :ivar secure_operations: work on volume files as the service's own
        user; else as root.
    :ivar file_mode: octal text.
    """

    api_addresses: tuple[str, ...]
    credentials: client.BearerToken | client.BasicLogin
    verify: bool | str
    connect_timeout_seconds: float
    read_timeout_seconds: float
    deadline_seconds: float
    pools: tuple[str, ...]
    portal: str
    client_addresses: addresses.ClientAddresses
    sparse: bool
    mount_point_base: str
    mount_options: str
    mount_attempts: int
    mount_timeout_seconds: float
    reap_interval_seconds: float
    secure_operations: bool
    file_uid: int
    file_gid: int
    file_mode: str

    @property
    def allocation(self) -> str:
        return "sparse" if self.sparse else "full"

    def mount_options_for(self, nfs_versions: Iterable[str]) -> str:
        """For the driver's own mounts: the options with an NFS version, so
        that os-brick makes one attempt and not one for each it knows.

        :param nfs_versions: what the appliance serves a share with.
        """
        given = [part for part in self.mount_options.split(",") if part]
        if any(_VERSION_OPTION.match(part) for part in given):
            return ",".join(given)
        newest = max(nfs_versions, key=_version, default="4.2")
        return ",".join([f"vers={newest}", *given])

    @property
    def connection_options(self) -> str:
        """For mounts of others, as words of a mount command: what the
        operator gave. No version of ours: os-brick, as Cinder makes its
        connectors, names one first, and mount.nfs refuses two; Nova and
        mount.nfs take the newest by themselves.
        """
        return f"-o {self.mount_options or 'rw'}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def read(configuration: Any) -> Settings:
    """Read Cinder's configuration of one back end.

    :raises InvalidConfigurationValue: with every option that is wrong or
        missing by its name, and what is expected.
    """
    reader = _Reader(configuration)
    settings = reader.settings()
    if reader.complaints or settings is None:
        raise exception.InvalidConfigurationValue(
            "Invalid configuration of the back end: "
            + "; ".join(reader.complaints)
        )
    return settings


class _Reader:
    """Collects complaints instead of stopping at the first one."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self.complaints: list[str] = []

    def _get(self, name: str) -> Any:
        return self._configuration.safe_get(name)

    def _complain(self, name: str, expected: str) -> None:
        self.complaints.append(f"{name}: {expected}")

    def settings(self) -> Settings | None:
        credentials = self._credentials()
        client_addresses = self._client_addresses()
        values: dict[str, Any] = {
            "api_addresses": self._api_addresses(),
            "verify": self._verify(),
            "connect_timeout_seconds": self._get(
                "acme_api_connect_timeout_seconds"
            ),
            "read_timeout_seconds": self._get("acme_api_read_timeout_seconds"),
            "deadline_seconds": self._get("acme_api_deadline_seconds"),
            "pools": self._pools(),
            "portal": self._portal(),
            "sparse": self._get("nfs_sparsed_volumes"),
            "mount_point_base": self._mount_point_base(),
            "mount_options": self._mount_options(),
            "mount_attempts": max(1, self._get("nfs_mount_attempts")),
            "mount_timeout_seconds": self._get("acme_mount_timeout_seconds"),
            "reap_interval_seconds": self._get("acme_reap_interval_seconds"),
            "secure_operations": self._switch("nas_secure_file_operations"),
            "file_mode": "0660"
            if self._switch("nas_secure_file_permissions")
            else "0666",
            "file_uid": self._owner("acme_file_uid", os.geteuid()),
            "file_gid": self._owner("acme_file_gid", os.getegid()),
        }
        self._volume_name_template()
        if credentials is None or client_addresses is None:
            return None
        return Settings(
            credentials=credentials,
            client_addresses=client_addresses,
            **values,
        )

    def _api_addresses(self) -> tuple[str, ...]:
        given = tuple(self._get("acme_api_addresses") or ())
        expected = "https://HOST:PORT of the appliance, or several"
        if not given:
            self._complain("acme_api_addresses", f"{expected}; none is set")
        for address in given:
            if not _is_url(address):
                self._complain(
                    "acme_api_addresses", f"{expected}, not {address!r}"
                )
        return given

    def _credentials(
        self,
    ) -> client.BearerToken | client.BasicLogin | None:
        token = self._get("acme_api_token")
        user, password = self._get("nas_user"), self._get("nas_password")
        try:
            if token:
                return client.BearerToken(token)
            if user and password:
                return client.BasicLogin(user, password)
        except ValueError as error:
            self._complain(
                "acme_api_token" if token else "nas_user, nas_password",
                str(error),
            )
            return None
        if user or password:
            self._complain(
                "nas_user" if password else "nas_password",
                "is needed together with the other one",
            )
        else:
            self._complain(
                "acme_api_token",
                "a bearer token of the appliance is needed, or nas_user "
                "and nas_password",
            )
        return None

    def _verify(self) -> bool | str:
        if not self._get("acme_api_verify"):
            return False
        path = self._get("acme_api_ca_file")
        if not path:
            return True
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            self._complain(
                "acme_api_ca_file",
                f"a readable file with certificates, not {path!r}",
            )
        return str(path)

    def _pools(self) -> tuple[str, ...]:
        pools = tuple(self._get("acme_pools") or ())
        if len(set(pools)) != len(pools):
            self._complain("acme_pools", "each pool once")
        return pools

    def _portal(self) -> str:
        portal = str(self._get("acme_nfs_portal") or "").strip("[]")
        if re.search(r"[\s/]", portal):
            self._complain(
                "acme_nfs_portal", f"an address or a host, not {portal!r}"
            )
        return portal

    def _client_addresses(self) -> addresses.ClientAddresses | None:
        try:
            networks = addresses.parse_mapping(
                self._get("acme_client_networks") or ()
            )
        except ValueError as error:
            self._complain("acme_client_networks", str(error))
            return None
        fixed = []
        for text in self._get("acme_fixed_clients") or ():
            try:
                fixed.append(str(addresses.parse_client(text)))
            except ValueError:
                self._complain(
                    "acme_fixed_clients",
                    f"IP addresses or networks, not {text!r}",
                )
        return addresses.ClientAddresses(networks, tuple(fixed))

    def _mount_point_base(self) -> str:
        base = self._get("nfs_mount_point_base") or ""
        if not os.path.isabs(base) or re.search(r"\s", base):
            self._complain(
                "nfs_mount_point_base",
                f"an absolute path without white space, not {base!r}",
            )
        return os.path.realpath(base)

    def _mount_options(self) -> str:
        name = "nas_mount_options"
        options = self._get(name)
        if options is None:
            name = "nfs_mount_options"
            options = self._get(name) or ""
        options = options.strip().removeprefix("-o").strip()
        if re.search(r"\s", options):
            # os-brick splits them at white space.
            self._complain(
                name,
                "options separated by commas, without white space, "
                f"not {options!r}",
            )
        return str(options)

    def _switch(self, name: str) -> bool:
        value = str(self._get(name)).lower()
        if value not in _SWITCH:
            self._complain(name, f"auto, true or false, not {value!r}")
        return _SWITCH.get(value, True)

    def _owner(self, name: str, default: int) -> int:
        value = self._get(name)
        return default if value is None else int(value)

    def _volume_name_template(self) -> None:
        template = cfg.CONF.volume_name_template
        sample = "0" * 36
        try:
            name = template % sample
        except (TypeError, ValueError):
            name = ""
        if sample not in name or not _FILE_NAME.fullmatch(name):
            self._complain(
                "volume_name_template",
                "a file name with %s in it, of letters, digits and "
                f"._@%+=:,- only, not {template!r}",
            )


def _is_url(address: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(address)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("https", "http")
        and bool(parts.hostname)
        and port != 0
        and parts.path in ("", "/")
        and not (parts.query or parts.fragment or parts.username)
    )
