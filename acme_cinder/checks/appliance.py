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

"""Checks of the appliance, through its API."""

from __future__ import annotations

from collections.abc import Iterator
import re
from typing import Final

from acme_cinder import addresses
from acme_cinder import features
from acme_cinder.checks import findings
import acme_client

_CREDENTIAL: Final = "acme_api_token, or nas_user and nas_password"
_SUFFICIENT_SCOPES: Final = ("driver", "operator", "admin")
_NEW_CREDENTIAL: Final = (
    "make one on the appliance: acme-appliance token create NAME --scope "
    "driver:NAMESPACE"
)
#: What is missing without a feature.
_OPTIONAL: Final = {
    features.VOLUME_FILE: "the driver mounts each new share to make its file",
    features.GROW_ONLINE: "attached volumes are extended only after a detach",
    features.THICK: "no volumes that take all of their space from the start",
    features.SNAPSHOT_EXPORT: "a backup of an attached volume needs a clone",
    features.REVERT: "Cinder copies a snapshot to revert to it",
}
_WANTED_VERSION: Final = re.compile(r"(?:nfs)?v(?:ers=)?([234](?:\.\d)?)$")


def _credential(scene: findings.Scene) -> Iterator[findings.Note]:
    try:
        token = scene.token
    except acme_client.AuthenticationFailed as error:
        yield findings.failed(
            f"{_CREDENTIAL}: a valid credential of the appliance is needed: "
            f"{error}",
            _NEW_CREDENTIAL,
            is_option=True,
        )
    except (acme_client.BadRequest, acme_client.NotFound) as error:
        if error.status not in (404, 405):
            yield _unusable(scene, error)
            return
        yield findings.warning(
            f"the appliance is too old to say what {_CREDENTIAL} may do, so "
            f"that is not checked: {error}"
        )
    except acme_client.ApiError as error:
        yield _unusable(scene, error)
    else:
        until = token.expires_at
        yield findings.ok(
            f"{token.name} is valid"
            + (f" until {until:%Y-%m-%d %H:%M} UTC" if until else "")
        )
        yield _scope(scene, token)


def _unusable(
    scene: findings.Scene, error: acme_client.ApiError
) -> findings.Note:
    return findings.failed(
        "the appliance at acme_api_addresses "
        f"{', '.join(scene.settings.api_addresses)} cannot be used: {error}"
    )


def _scope(
    scene: findings.Scene, token: acme_client.OwnToken
) -> findings.Note:
    if token.scope not in _SUFFICIENT_SCOPES:
        scene.may_change = False
        return findings.failed(
            f"{_CREDENTIAL}: a credential with the scope driver:NAMESPACE is "
            f"needed; {token.name} has the scope {token.scope}, which may "
            "change nothing",
            _NEW_CREDENTIAL,
            is_option=True,
        )
    if token.namespace is None:
        return findings.warning(
            f"{_CREDENTIAL}: {token.name} has the scope {token.scope}, which "
            "may change the shares of every namespace",
            "use a credential with the scope driver:NAMESPACE",
        )
    return findings.ok(f"its scope is {token.scope}:{token.namespace}")


def _figures(scene: findings.Scene) -> Iterator[findings.Note]:
    try:
        found = scene.figures
    except acme_client.ApiError as error:
        yield _unusable(scene, error)
    else:
        yield findings.ok(f"{found.system_name} reports its pools")


def _pools(scene: findings.Scene) -> Iterator[findings.Note]:
    names = [pool.name for pool in scene.figures.pools]
    missing = [name for name in scene.settings.pools if name not in names]
    if not names:
        yield findings.failed(
            "acme_pools: the appliance has no pools at all",
            "make one on the appliance",
            is_option=True,
        )
    elif missing:
        yield findings.failed(
            f"acme_pools: the appliance has the pools {', '.join(names)}; "
            f"not {', '.join(missing)}",
            "name only pools that it has",
            is_option=True,
        )
    else:
        yield findings.ok(", ".join(pool.name for pool in scene.pools))


def _portal(scene: findings.Scene) -> Iterator[findings.Note]:
    known, wanted = scene.figures.portals, scene.settings.portal
    if not known:
        yield findings.failed(
            "the appliance has no NFS address",
            "set one on the appliance",
        )
    elif wanted and not any(
        addresses.same_host(wanted, each) for each in known
    ):
        yield findings.failed(
            f"acme_nfs_portal: one of {', '.join(known)} is expected, not "
            f"{wanted}",
            is_option=True,
        )
    else:
        where = wanted or ", ".join(known)
        yield findings.ok(f"shares are mounted from {where}")


def _health(scene: findings.Scene) -> Iterator[findings.Note]:
    system = scene.api.get_system()
    said = f"{system.name}, {system.product} {system.version}, is "
    if system.health == "ok":
        yield findings.ok(said + "well")
    else:
        yield findings.warning(
            said + system.health, "see its own log and status"
        )
    for pool in scene.pools:
        free = pool.free_bytes / (1 << 30)
        if pool.state != "up":
            yield findings.failed(
                f"pool {pool.name} is {pool.state}",
                "mend it on the appliance, or leave it out of acme_pools",
            )
        elif free < 1:
            yield findings.failed(
                f"pool {pool.name} is full", "delete volumes, or enlarge it"
            )
        else:
            yield findings.ok(f"pool {pool.name} has {free:,.1f} GiB free")


def _features(scene: findings.Scene) -> Iterator[findings.Note]:
    for pool in scene.pools:
        missing = [
            f"no {name}: {without}"
            for name, without in _OPTIONAL.items()
            if name not in pool.features
        ]
        said = "; ".join(missing) or "all that the driver can use"
        yield findings.ok(f"pool {pool.name}: {said}")


def _nfs_versions(scene: findings.Scene) -> Iterator[findings.Note]:
    served = scene.figures.nfs_versions
    options = scene.settings.mount_options_for(served).split(",")
    found = [_WANTED_VERSION.search(option) for option in options]
    version = next((match[1] for match in found if match), "")
    if served and not any(
        each == version or each.startswith(f"{version}.") for each in served
    ):
        yield findings.failed(
            f"nfs_mount_options: the appliance has NFS {', '.join(served)}, "
            f"not {version}",
            "ask for one of these, or for none",
            is_option=True,
        )
    else:
        yield findings.ok(f"NFS {version}, of {', '.join(served) or 'any'}")


CREDENTIAL: Final = findings.Check("credential", _credential, ("api",))
FIGURES: Final = findings.Check("figures", _figures, ("credential",))
POOLS: Final = findings.Check("pools", _pools, ("figures",))
PORTAL: Final = findings.Check("portal", _portal, ("figures",))
HEALTH: Final = findings.Check("health", _health, ("figures",))
FEATURES: Final = findings.Check("features", _features, ("figures",))
NFS_VERSIONS: Final = findings.Check(
    "nfs-versions", _nfs_versions, ("figures",)
)
