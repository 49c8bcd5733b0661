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

from cinder import exception
from cinder import utils
from oslo_context import context as oslo_context
from oslo_log import log as logging

from acme_cinder import checks
from acme_cinder import mount
from acme_cinder import settings as options
from acme_cinder.checks import findings
import acme_client

LOG = logging.getLogger(__name__)


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


def check_host(
    settings: options.DriverSettings,
    api: acme_client.Client,
    mounts: mount.Mounts,
) -> None:
    """Check the requirements on this host.

    :raises VolumeDriverException: lists what is missing.
    :raises InvalidConfigurationValue: likewise, if only options are wrong.
    """
    scene = findings.Scene(settings, api, mounts)
    _demand(scene, checks.HOST_AT_START)


def check_appliance(
    settings: options.DriverSettings,
    api: acme_client.Client,
    mounts: mount.Mounts,
) -> acme_client.Stats:
    """Check that the appliance can be used; return its figures.

    :raises VolumeDriverException: it does not answer, or refuses.
    :raises InvalidConfigurationValue: lists all options that do not match.
    """
    scene = findings.Scene(settings, api, mounts)
    _demand(scene, checks.APPLIANCE_AT_START)
    return scene.figures


def _demand(scene: findings.Scene, wanted: Iterable[findings.Check]) -> None:
    found = list(findings.run(scene, wanted))
    for each in found:
        if each.state is findings.State.WARNING:
            LOG.warning("%s", each)
    failed = [each for each in found if each.state is findings.State.FAILED]
    if not failed:
        return
    text = "; ".join(map(str, failed))
    if all(each.is_option for each in failed):
        raise exception.InvalidConfigurationValue(text)
    raise exception.VolumeDriverException(message=text)


def chosen(
    pools: Iterable[acme_client.Pool], settings: options.DriverSettings
) -> list[acme_client.Pool]:
    """The pools that the operator has chosen."""
    return [
        pool
        for pool in pools
        if not settings.pools or pool.name in settings.pools
    ]
