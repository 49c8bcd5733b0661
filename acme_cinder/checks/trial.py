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

"""Make, mount, write, read and remove a share, as the driver does.

The share has the driver's own name for it and a label, is locked like a copy
for an image while it is in use, and is removed in the end. What a killed check
has left is removed by the next one on the same host.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pwd
import re
import tempfile
from typing import Any
from typing import Final
import uuid

from oslo_concurrency import processutils

from acme_cinder import errors
from acme_cinder import holders
from acme_cinder import mount
from acme_cinder import shares
from acme_cinder.checks import findings
import acme_client

LABEL: Final = "cinder.check_made_by"
NAME: Final = "acme-cinder-check"
_LABEL_LENGTH: Final = 255
_BLOCK: Final = 4096
#: Whom QEMU runs as, by distribution.
_QEMU_USERS: Final = ("libvirt-qemu", "qemu", "nova")
_NOBODY: Final = (65534, 65534)


@dataclasses.dataclass
class _Trial:
    """What :class:`acme_cinder.shares.Shares` takes for a volume."""

    id: str
    name: str
    host: str
    size: int = 1
    provider_id: str | None = None
    provider_location: str | None = None

    @property
    def name_id(self) -> str:
        return self.id

    def obj_attr_is_set(self, name: str) -> bool:
        return hasattr(self, name)


def maker(mounts: mount.Mounts) -> str:
    """The label's value: which checks the share can be of."""
    return f"{holders.this_host()}:{mounts.base}"[:_LABEL_LENGTH]


def _mount(scene: findings.Scene) -> Iterator[findings.Note]:
    if not scene.may_change:
        yield findings.unchecked("because the credential may change nothing")
        return
    _remove_leftovers(scene)
    for pool in scene.pools:
        if pool.state == "up":
            yield from _try(scene, pool.name)


def _remove_leftovers(scene: findings.Scene) -> None:
    label = {LABEL: maker(scene.mounts)}
    for share in list(scene.api.list_shares(labels=label)):
        remove(_shares(scene), scene.mounts, share.id)


def remove(made: shares.Shares, mounts: mount.Mounts, share_id: str) -> bool:
    """Remove the share of a check, unless a process here still uses it."""
    with mounts.idle(work_on(share_id)) as is_idle:
        if not is_idle or not mounts.reap(
            share_id, lambda: made.revoke_own(share_id)
        ):
            return False
        return made.api.delete_share(share_id)


def work_on(share_id: str) -> str:
    """The lock that is held as long as the share exists."""
    return f"check-{share_id}"


def _shares(scene: findings.Scene) -> shares.Shares:
    # Only deletes of volumes ask whether the appliance is the right one.
    unused: Any = None
    return shares.Shares(scene.api, scene.settings, scene.mounts, unused)


def _try(scene: findings.Scene, pool: str) -> Iterator[findings.Note]:
    host = re.sub("[^A-Za-z0-9.-]", "-", holders.this_host())
    trial: Any = _Trial(
        str(uuid.uuid4()), f"{NAME}-{host}", f"{scene.host}#{pool}"
    )
    made = _shares(scene)
    with scene.mounts.at_work(work_on(trial.id)):
        try:
            update = made.create(trial, labels={LABEL: maker(scene.mounts)})
        except acme_client.ApiError as error:
            yield findings.failed(
                f"pool {pool}: no share can be made: {error}",
                "see the appliance's log for that request",
            )
            # It may have been made, and only the reply was lost.
            yield from _removed(scene, trial, pool)
            return
        trial.provider_location = update["provider_location"]
        try:
            yield from _use(scene, made, trial, pool)
        finally:
            removed = list(_removed(scene, trial, pool))
        yield from removed


def _removed(
    scene: findings.Scene, trial: Any, pool: str
) -> Iterator[findings.Note]:
    """Only what is left is worth a line."""
    try:
        scene.api.delete_share(trial.id)
    except acme_client.ApiError as error:
        yield findings.failed(
            f"pool {pool}: the share {trial.id}, {trial.name}, is left: "
            f"{error}",
            "the next check on this host removes it, and so does "
            "acme-cinder orphans --clean",
        )


def _use(
    scene: findings.Scene, made: shares.Shares, trial: Any, pool: str
) -> Iterator[findings.Note]:
    location = trial.provider_location
    opened = contextlib.ExitStack()
    with opened:
        try:
            path = opened.enter_context(made.mounted(trial))
        except errors.BELOW as error:
            yield findings.failed(
                f"pool {pool}: {location} cannot be mounted: {_said(error)}",
                "does the appliance see this host under another address "
                "(acme_client_networks)? May the user of cinder-volume run "
                "commands as root (rootwrap, sudo)? The NFS server's log "
                "says more",
            )
            return
        yield findings.ok(f"pool {pool}: {location} is mounted")
        yield _own_access(scene, path, pool)
        yield _qemus_access(scene, path, pool)


def _said(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    return " ".join(str(text).split())


def _own_access(scene: findings.Scene, path: str, pool: str) -> findings.Note:
    """Write a block as the driver does, and read it back."""
    as_root = not scene.settings.secure_operations
    run = scene.mounts.commands.run
    content = os.urandom(_BLOCK)
    with tempfile.NamedTemporaryFile(prefix="acme-check-") as given:
        given.write(content)
        given.flush()
        common = (f"bs={_BLOCK}", "count=1", "status=none")
        try:
            run(
                *("dd", f"if={given.name}", f"of={path}", *common),
                "conv=notrunc,fsync",
                root=as_root,
            )
            given.truncate(0)
            run(
                *("dd", f"if={path}", f"of={given.name}", *common),
                root=as_root,
            )
        except errors.BELOW as error:
            return findings.failed(
                f"pool {pool}: the file cannot be written and read: "
                f"{_said(error)}",
                "compare acme_file_uid, acme_file_gid and "
                "nas_secure_file_operations with what the appliance allows",
            )
        given.seek(0)
        if given.read() != content:
            return findings.failed(
                f"pool {pool}: other data came back than was written",
                "do not use this appliance until that is explained",
            )
    return findings.ok(f"pool {pool}: written and read as the driver does")


def _qemus_access(
    scene: findings.Scene, path: str, pool: str
) -> findings.Note:
    """Read and write as another user of this host.

    In the share's folder, because only the driver may look into the one
    above it.
    """
    name, uid, gid = _qemus_user()
    folder, _, file_name = path.rpartition("/")
    become = (
        *("env", f"--chdir={folder}", "setpriv", f"--reuid={uid}"),
        *(f"--regid={gid}", "--clear-groups"),
    )
    try:
        scene.mounts.commands.run(
            *(*become, "dd", f"if={file_name}", f"of={file_name}"),
            *(f"bs={_BLOCK}", "count=1", "conv=notrunc,fsync", "status=none"),
            root=True,
        )
    except processutils.ProcessExecutionError as error:
        return findings.failed(
            f"pool {pool}: QEMU, as the user {name}, may not read and write "
            f"the file: {_said(error)}",
            "the appliance must map all users of a host to the file's owner "
            "(all_squash), or set nas_secure_file_permissions = false",
        )
    return findings.ok(f"pool {pool}: written and read as {name}, like QEMU")


def _qemus_user() -> tuple[str, int, int]:
    for name in _QEMU_USERS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return name, found.pw_uid, found.pw_gid
    return ("nobody", *_NOBODY)


MOUNT: Final = findings.Check(
    "mount",
    _mount,
    (
        *("mount.nfs", "mount-point-base", "credential", "pools", "portal"),
        "nfs-port",
    ),
)
