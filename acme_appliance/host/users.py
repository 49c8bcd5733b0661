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

"""The system user of the service.

The sysusers.d file creates it. Without it everything belongs to root, as in
tests or when the service is started by hand.
"""

import os
import pathlib
import pwd
from typing import Final

NAME: Final = "acme-appliance"


def ids() -> tuple[int, int]:
    """User and group for chown(2); -1 (no change) if the user is missing."""
    try:
        found = pwd.getpwnam(NAME)
    except KeyError:
        return -1, -1
    return found.pw_uid, found.pw_gid


def create_for_owner(file: pathlib.Path) -> None:
    """Create an empty file, with the owner of its directory, that only owner
    and group can read.

    So a file that root creates with a command belongs to the service. An
    existing file is not changed.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags, 0o640)
    except FileExistsError:
        return
    try:
        owner = file.parent.stat()
        if os.geteuid() == 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
