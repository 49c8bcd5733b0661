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

"""Create the driver's parts, and check their requirements."""

from collections.abc import Iterable
from collections.abc import Iterator
import os
import shutil

from cinder import exception
from cinder import utils
from oslo_context import context as oslo_context
from oslo_log import log as logging

from acme_cinder import addresses
from acme_cinder import mount
from acme_cinder import settings as options
import acme_client

LOG = logging.getLogger(__name__)

_CREDENTIAL = "acme_api_token, or nas_user and nas_password"
_SUFFICIENT_SCOPES = ("driver", "operator", "admin")
#: mount.nfs is often only in root's PATH.
_ADMIN_PATH = "/sbin:/usr/sbin:/usr/local/sbin"


def new_client(settings: options.DriverSettings) -> acme_client.Client:
    """:raises InvalidConfigurationValue: a setting is invalid."""
    try:
        return acme_client.Client(
            settings.api_addresses,
            settings.credentials,
            verify=settings.verify,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            read_timeout_seconds=settings.read_timeout_seconds,
            deadline_seconds=settings.deadline_seconds,
            request_id=_request_id,
            ca_option="acme_api_ca_file",
        )
    except acme_client.ConfigurationError as error:
        raise exception.InvalidConfigurationValue(
            f"acme_api_addresses, acme_api_ca_file: {error}"
        ) from error


def _request_id() -> str | None:
    """Cinder's request id, which is also in the appliance's log."""
    context = oslo_context.get_current()
    return None if context is None else str(context.request_id)


def new_mounts(settings: options.DriverSettings, backend: str) -> mount.Mounts:
    """:param backend: the back end's section in cinder.conf."""
    return mount.Mounts(
        backend=backend,
        base=settings.mount_point_base,
        root_helper=utils.get_root_helper(),
        attempts=settings.mount_attempts,
        timeout_seconds=settings.mount_timeout_seconds,
    )


def check_host(settings: options.DriverSettings) -> None:
    """Check the requirements on this host.

    :raises VolumeDriverException: lists what is missing.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), _ADMIN_PATH])
    if shutil.which("mount.nfs", path=path) is None:
        raise exception.VolumeDriverException(
            message="mount.nfs is not installed; the package is called "
            "nfs-common or nfs-utils"
        )
    base = settings.mount_point_base
    try:
        os.makedirs(base, exist_ok=True)
    except OSError as error:
        raise exception.InvalidConfigurationValue(
            f"nfs_mount_point_base: {base} cannot be made: {error.strerror}"
        ) from error
    if not os.access(base, os.W_OK | os.X_OK):
        raise exception.InvalidConfigurationValue(
            f"nfs_mount_point_base: {base} must be writable for the user "
            "that the service runs as"
        )


def check_appliance(
    api: acme_client.Client, settings: options.DriverSettings
) -> acme_client.Stats:
    """Check that the appliance can be used; return its figures.

    :raises VolumeDriverException: it does not answer, or refuses.
    :raises InvalidConfigurationValue: lists all options that do not match.
    """
    try:
        complaints = [*_complain_of_credential(api)]
        found = api.get_stats()
    except acme_client.AuthenticationFailed as error:
        raise exception.InvalidConfigurationValue(
            f"{_CREDENTIAL}: a valid credential of the appliance is needed: "
            f"{error}"
        ) from error
    except acme_client.ApiError as error:
        raise exception.VolumeDriverException(
            message="the appliance at acme_api_addresses "
            f"{', '.join(settings.api_addresses)} cannot be used: {error}"
        ) from error
    complaints += _complain_of_pools(found.pools, settings)
    complaints += _complain_of_portal(found.portals, settings)
    if complaints:
        raise exception.InvalidConfigurationValue("; ".join(complaints))
    return found


def _complain_of_credential(api: acme_client.Client) -> Iterator[str]:
    """Compare the credential's permissions with the required ones."""
    try:
        token = api.get_own_token()
    except (acme_client.BadRequest, acme_client.NotFound) as error:
        if error.status not in (404, 405):
            raise
        LOG.warning(
            "The appliance is too old to say what %s may do, so that is not "
            "checked: %s",
            _CREDENTIAL,
            error,
        )
        return
    if token.scope not in _SUFFICIENT_SCOPES:
        yield (
            f"{_CREDENTIAL}: a credential with the scope driver:NAMESPACE is "
            f"needed; {token.name} has the scope {token.scope}, which may "
            "change nothing"
        )
    elif token.namespace is None:
        LOG.warning(
            "%s: %s has the scope %s, which may change the shares of every "
            "namespace; use a credential with the scope driver:NAMESPACE",
            _CREDENTIAL,
            token.name,
            token.scope,
        )


def _complain_of_pools(
    pools: Iterable[acme_client.Pool], settings: options.DriverSettings
) -> Iterator[str]:
    names = [pool.name for pool in pools]
    missing = [name for name in settings.pools if name not in names]
    if not names:
        yield "acme_pools: the appliance has no pools at all"
    elif missing:
        yield (
            f"acme_pools: the appliance has the pools {', '.join(names)}; "
            f"not {', '.join(missing)}"
        )


def _complain_of_portal(
    portals: Iterable[str], settings: options.DriverSettings
) -> Iterator[str]:
    known = list(portals)
    wanted = settings.portal
    if (
        wanted
        and known
        and not any(addresses.same_host(wanted, each) for each in known)
    ):
        yield (
            f"acme_nfs_portal: one of {', '.join(known)} is expected, not "
            f"{wanted}"
        )


def chosen(
    pools: Iterable[acme_client.Pool], settings: options.DriverSettings
) -> list[acme_client.Pool]:
    """The pools that the operator has chosen."""
    return [
        pool
        for pool in pools
        if not settings.pools or pool.name in settings.pools
    ]
