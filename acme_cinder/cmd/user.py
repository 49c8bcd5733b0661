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

"""The user that a command runs as.

The driver's locks and mount points belong to the user of cinder-volume. What
root made there, that user could not open any more.
"""

import os
import pwd
from typing import Final

_USUAL: Final = "cinder"


class Unknown(Exception):
    """There is no such user, or only root may become it."""


def become(name: str | None) -> None:
    """Go on as another user.

    :param name: default: ``cinder``, if this process is root's and there is
        such a user.
    :raises Unknown: it is not possible.
    """
    if name is None and os.geteuid() != 0:
        return
    try:
        wanted = pwd.getpwnam(name or _USUAL)
    except KeyError:
        if name is None:
            return
        raise Unknown(f"--user: there is no user {name}") from None
    if wanted.pw_uid == os.geteuid():
        return
    try:
        os.initgroups(wanted.pw_name, wanted.pw_gid)
        os.setgid(wanted.pw_gid)
        os.setuid(wanted.pw_uid)
    except PermissionError:
        raise Unknown(
            f"--user: only root may become {wanted.pw_name}"
        ) from None
    os.environ["HOME"] = wanted.pw_dir
