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

"""Putting the driver together, and checking that it can work."""

from collections.abc import Callable
from collections.abc import Iterable
import os
import shutil

from cinder import exception
from cinder import utils

from acme_cinder import client
from acme_cinder import mount
from acme_cinder import settings as options

#: mount.nfs is often where only root's PATH leads.
_ADMIN_PATH = "/sbin:/usr/sbin:/usr/local/sbin"


def new_client(
    settings: options.Settings, request_id: Callable[[], str | None]
) -> client.Client:
    """:raises InvalidConfigurationValue: it cannot be made of these."""
    try:
        return client.Client(
            settings.api_addresses,
            settings.credentials,
            verify=settings.verify,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            read_timeout_seconds=settings.read_timeout_seconds,
            deadline_seconds=settings.deadline_seconds,
            request_id=request_id,
            ca_option="acme_api_ca_file",
        )
    except client.ConfigurationError as error:
        raise exception.InvalidConfigurationValue(
            f"acme_api_addresses, acme_api_ca_file: {error}"
        ) from error


def new_mounts(settings: options.Settings, owner: str) -> mount.Mounts:
    """:param owner: the back end's section in cinder.conf."""
    return mount.Mounts(
        owner=owner,
        base=settings.mount_point_base,
        root_helper=utils.get_root_helper(),
        attempts=settings.mount_attempts,
        timeout_seconds=settings.mount_timeout_seconds,
    )


def check_host(settings: options.Settings) -> None:
    """Check what this host must have.

    :raises VolumeDriverException: with what is missing.
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
    api: client.Client, settings: options.Settings
) -> tuple[client.Pool, ...]:
    """Check that the appliance can be used; returns all its pools.

    :raises VolumeDriverException: it does not answer, or not to us.
    :raises InvalidConfigurationValue: an option does not fit it.
    """
    try:
        pools = api.list_pools()
        portals = api.get_system().portals
    except client.AuthenticationFailed as error:
        raise exception.InvalidConfigurationValue(
            "acme_api_token, or nas_user and nas_password: a valid "
            f"credential of the appliance is needed: {error}"
        ) from error
    except client.Forbidden as error:
        raise exception.InvalidConfigurationValue(
            "acme_api_token, or nas_user and nas_password: a credential "
            f"with the scope driver:NAMESPACE is needed: {error}"
        ) from error
    except client.ApiError as error:
        raise exception.VolumeDriverException(
            message="the appliance at acme_api_addresses "
            f"{', '.join(settings.api_addresses)} cannot be used: {error}"
        ) from error
    _check_pools(pools, settings)
    _check_portal(portals, settings)
    return pools


def _check_pools(
    pools: Iterable[client.Pool], settings: options.Settings
) -> None:
    names = [pool.name for pool in pools]
    missing = [name for name in settings.pools if name not in names]
    if missing or not names:
        raise exception.InvalidConfigurationValue(
            f"acme_pools: the appliance has the pools {', '.join(names)}"
            f"; not {', '.join(missing)}"
            if names
            else "acme_pools: the appliance has no pools at all"
        )


def _check_portal(portals: Iterable[str], settings: options.Settings) -> None:
    known = list(portals)
    if settings.portal and known and settings.portal not in known:
        raise exception.InvalidConfigurationValue(
            f"acme_nfs_portal: one of {', '.join(known)} is expected, not "
            f"{settings.portal}"
        )


def chosen(
    pools: Iterable[client.Pool], settings: options.Settings
) -> list[client.Pool]:
    """The pools that the operator wants to be used."""
    return [
        pool
        for pool in pools
        if not settings.pools or pool.name in settings.pools
    ]
