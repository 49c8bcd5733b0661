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

"""Read, check and type the configuration of a back end."""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import glob
import os
import re
from typing import Any
from typing import TypeVar

from cinder import exception
from cinder.volume import configuration as cinder_configuration
from cinder.volume import driver
from oslo_config import cfg
from oslo_log import log as logging

from acme_cinder import addresses
from acme_cinder import opts
import acme_client

LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Valid names of volume files in the API.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@%+=:,-]{0,254}")
_VERSION_OPTION = re.compile(r"(nfsvers|vers)=|v[234](\.\d)?$")
_GIVEN_VERSION = re.compile(r"\b(?:nfs)?v(?:ers=)?([234](?:\.\d)?)(?=,|$)")
#: Invalid in paths, URLs and headers; each option checks white space.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SWITCH = {"auto": True, "true": True, "false": False}


class InvalidOptions(exception.InvalidConfigurationValue):
    """Options of the back end are invalid or missing.

    :ivar complaints: one for each, beginning with its name.
    """

    def __init__(self, complaints: Iterable[str]) -> None:
        self.complaints = tuple(complaints)
        super().__init__(
            "Invalid configuration of the back end: "
            + "; ".join(self.complaints)
        )


@dataclasses.dataclass(frozen=True)
class DriverSettings:
    """The operator's settings of one back end.

    :ivar verify: see :class:`acme_client.Client`.
    :ivar mount_options: without ``-o``; empty: none.
    :ivar secure_operations: access volume files as the service's user;
        otherwise as root.
    :ivar file_mode: octal text.
    """

    api_addresses: tuple[str, ...]
    credentials: acme_client.BearerToken | acme_client.BasicLogin
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

    def with_peers(
        self, peer: Callable[[str], str | None]
    ) -> "DriverSettings":
        """A copy with the addresses that other hosts have recorded.

        :param peer: returns a host's address, if known.
        """
        return dataclasses.replace(
            self,
            client_addresses=dataclasses.replace(
                self.client_addresses, peer=peer
            ),
        )

    @property
    def allocation(self) -> str:
        return "sparse" if self.sparse else "full"

    def mount_options_for(self, nfs_versions: Iterable[str]) -> str:
        """Options of the driver's own mounts, with an NFS version, so that
        os-brick makes one attempt instead of one for each version.

        :param nfs_versions: the versions that the appliance supports.
        """
        given = [part for part in self.mount_options.split(",") if part]
        if any(_VERSION_OPTION.match(part) for part in given):
            return ",".join(given)
        newest = max(nfs_versions, key=_version, default="4.2")
        return ",".join([f"vers={newest}", *given])

    def can_discard(self, nfs_versions: Iterable[str]) -> bool:
        """Whether a guest's discard reaches the file: DEALLOCATE is an
        operation of NFS 4.2 (RFC 7862, 15.4)."""
        given = _GIVEN_VERSION.findall(self.mount_options)
        return any(
            _version(found) >= (4, 2) for found in given or nfs_versions
        )

    @property
    def connection_options(self) -> str:
        """Options for mounts of others, as arguments of a mount command.

        Without an NFS version, unless the operator configured one: os-brick,
        as Cinder creates its connectors, adds one, and mount.nfs refuses two.
        Nova and mount.nfs use the newest by default.
        """
        return f"-o {self.mount_options or 'rw'}"

    @property
    def read_only_options(self) -> str:
        """As :attr:`connection_options`, for what nobody can write."""
        given = [part for part in self.mount_options.split(",") if part]
        return f"-o {','.join([*given, 'ro'])}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def read(configuration: Any) -> DriverSettings:
    """Read Cinder's configuration of one back end.

    :raises InvalidOptions: lists every option that is invalid or missing, and
        what is expected.
    """
    reader = _Reader(configuration)
    settings = reader.settings()
    if reader.complaints or settings is None:
        raise InvalidOptions(reader.complaints)
    return settings


class _Reader:
    """Collects all errors instead of stopping at the first one."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self.complaints: list[str] = []

    def _get(self, name: str) -> Any:
        """An option's value, or its default if the value is invalid."""
        try:
            value = self._plain(name, self._configuration.safe_get(name))
            if value is None and _DEFAULTS[name] is not None:
                raise ValueError("it refers to an option without a value")
            return value
        except (cfg.Error, ValueError) as error:
            # oslo.config checks a value when it is read. Not all of its
            # messages contain the option's name.
            self._complain(name, str(error))
        return _DEFAULTS[name]

    def _plain(self, name: str, value: Any) -> Any:
        """The value without control characters, which are an error.

        The message does not contain the value, which may be a secret.
        """
        texts = value if isinstance(value, list) else [value]
        if not any(
            isinstance(text, str) and _CONTROL.search(text) for text in texts
        ):
            return value
        self._complain(name, "text without control characters is expected")
        plain = [_CONTROL.sub("", text) for text in texts]
        return plain if isinstance(value, list) else plain[0]

    def _complain(self, name: str, expected: str) -> None:
        self.complaints.append(f"{name}: {expected}")

    def _parsed(
        self, name: str, parse: Callable[[Any], _T], value: Any
    ) -> _T | None:
        try:
            return parse(value)
        except ValueError as error:
            self._complain(name, str(error))
        return None

    def settings(self) -> DriverSettings | None:
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
        return DriverSettings(
            credentials=credentials,
            client_addresses=client_addresses,
            **values,
        )

    def _api_addresses(self) -> tuple[str, ...]:
        name = "acme_api_addresses"
        given = tuple(self._get(name) or ())
        if not given:
            self._complain(
                name,
                "https://HOST:PORT of the appliance, or several; none is set",
            )
        return tuple(filter(None, map(self._api_address, given)))

    def _api_address(self, text: str) -> str | None:
        name = "acme_api_addresses"
        if not text.startswith(("https://", "http://")):
            self._complain(
                name, f"https://HOST:PORT is expected, not {text!r}"
            )
            return None
        return self._parsed(name, acme_client.parse_address, text)

    def _credentials(
        self,
    ) -> acme_client.BearerToken | acme_client.BasicLogin | None:
        token = self._get("acme_api_token")
        user, password = self._get("nas_user"), self._get("nas_password")
        try:
            if token:
                return acme_client.BearerToken(token)
            if user and password:
                return acme_client.BasicLogin(user, password)
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
        """The parameter ``verify`` of the client.

        Cinder's options for all drivers apply if the driver's own are not set.
        Cinder's default, not to verify, is not the operator's choice and does
        not apply.
        """
        verify = self._get("acme_api_verify")
        if not self._is_set("acme_api_verify") and self._is_set(
            "driver_ssl_cert_verify"
        ):
            verify = self._get("driver_ssl_cert_verify")
        if not verify:
            return False
        for name in ("acme_api_ca_file", "driver_ssl_cert_path"):
            path = self._get(name)
            if path:
                self._check_readable(name, path)
                return str(path)
        return True

    def _check_readable(self, name: str, path: str) -> None:
        try:
            acme_client.check_verify(path, name)
        except acme_client.ConfigurationError as error:
            self.complaints.append(error.message)

    def _is_set(self, name: str) -> bool:
        return _is_set(self._configuration.config_group, name)

    def _pools(self) -> tuple[str, ...]:
        pools = tuple(self._get("acme_pools") or ())
        if len(set(pools)) != len(pools):
            self._complain("acme_pools", "each pool once")
        return pools

    def _portal(self) -> str:
        text = self._get("acme_nfs_portal") or ""
        if not text:
            return ""
        return (
            self._parsed("acme_nfs_portal", addresses.parse_host, text) or ""
        )

    def _client_addresses(self) -> addresses.ClientAddresses | None:
        networks = self._parsed(
            "acme_client_networks",
            addresses.parse_mapping,
            self._get("acme_client_networks") or (),
        )
        fixed = [
            self._parsed("acme_fixed_clients", addresses.parse_client, text)
            for text in self._get("acme_fixed_clients") or ()
        ]
        if networks is None or None in fixed:
            return None
        unique = tuple(dict.fromkeys(filter(None, fixed)))
        most = max(map(len, networks.hosts.values()), default=1)
        # One more for the address that the host itself has recorded.
        if len(unique) + most + 1 > addresses.MAX_CLIENTS:
            self._complain(
                "acme_fixed_clients",
                f"an access rule has at most {addresses.MAX_CLIENTS} "
                "clients, those of the host among them",
            )
        return addresses.ClientAddresses(networks, unique)

    def _mount_point_base(self) -> str:
        base = str(self._get("nfs_mount_point_base") or "")
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


_DEFAULTS = {opt.name: opt.default for opt in opts.DRIVER_OPTS}


def _is_set(group: str, name: str) -> bool:
    """Whether the operator has set an option, to any value.

    Cinder reads the back end's section first, then ``[backend_defaults]``.
    """
    for section in (group, cinder_configuration.SHARED_CONF_GROUP):
        try:
            location = cfg.CONF.get_location(name, section)
        except (cfg.NoSuchOptError, cfg.NoSuchGroupError):
            continue
        except cfg.Error:
            # It has an invalid value.
            return True
        if location is not None and location.location not in (
            cfg.Locations.opt_default,
            cfg.Locations.set_default,
        ):
            return True
    return False


def find_unused(configuration: Any) -> dict[str, str]:
    """The options that have no effect here, and why.

    These are options of other drivers, and unknown names in the back end's
    section, such as misspelt options.
    """
    group = configuration.config_group
    others = [opt.name for opt in opts.UNUSED_OPTS]
    found = {
        name: opts.WITHOUT_EFFECT.get(name, "not used by this driver")
        for name in (*opts.WITHOUT_EFFECT, *others)
        if _is_set(group, name)
    }
    for name in _unknown(group):
        found[name] = "no such option of this driver or of Cinder"
    return dict(sorted(found.items()))


def warn_of_unused(configuration: Any) -> None:
    """Log one warning with all options that have no effect here."""
    found = find_unused(configuration)
    if found:
        LOG.warning(
            "Options in the section [%(group)s] without an effect: "
            "%(options)s",
            {
                "group": configuration.config_group,
                "options": "; ".join(
                    f"{name} ({reason})" for name, reason in found.items()
                ),
            },
        )


def _unknown(group: str) -> list[str]:
    """Names in the back end's section that are not options."""
    known = set(cfg.CONF[group])
    for opt in driver.volume_opts:
        known.update(old.name for old in opt.deprecated_opts)
    given = {
        name.replace("-", "_")
        for path in config_files()
        for name in _section(path, group)
    }
    return sorted(given - known)


def config_files() -> list[str]:
    """The configuration files of the service, as oslo.config reads them."""
    in_directories = [
        path
        for directory in cfg.CONF.config_dirs
        for path in sorted(glob.glob(f"{directory}/*.conf"))
    ]
    return [*cfg.CONF.config_file, *in_directories]


def _section(path: str, group: str) -> list[str]:
    sections: dict[str, dict[str, Any]] = {}
    try:
        cfg.ConfigParser(path, sections).parse()
    except (cfg.ParseError, OSError) as error:
        LOG.warning("Could not look for unused options: %s", error)
    return list(sections.get(group, ()))
