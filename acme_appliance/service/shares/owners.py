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

"""Validate the owner of a volume file.

With the default squash every user of a host with access acts as the owner of
the volume file. So a request must not choose root or a system account; the
configuration lists the allowed users and groups.
"""

from collections.abc import Sequence
import re

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.db import models

_FIELDS = ("uid", "gid")
_NEW_MODE = re.compile("06[0246]{2}")


def check(file: types.Body, settings: types.ServiceSettings) -> None:
    """Check the requested owner against the configuration, and allow only
    read and write bits in the mode.

    Not for existing shares: an earlier release allowed more.

    :raises problems.Problem: ``request.invalid`` with pointers.
    """
    errors = [
        {
            "pointer": f"/file/{field}",
            "code": "request.invalid",
            "detail": _complaint(field, file[field], settings),
        }
        for field in _FIELDS
        if field in file and not _is_allowed(field, file[field], settings)
    ]
    if "mode" in file and not _NEW_MODE.fullmatch(file["mode"]):
        errors.append(
            {
                "pointer": "/file/mode",
                "code": "request.invalid",
                "detail": f"A new file cannot have the mode {file['mode']}:"
                " it has bits for reading and writing only, and the owner has"
                " both.",
            }
        )
    if errors:
        detail = " ".join(error["detail"] for error in errors)
        raise problems.Problem("request.invalid", detail, errors=errors)


def inherited(file: types.Body, settings: types.ServiceSettings) -> types.Body:
    """A source's file with an owner and mode that a clone may have.

    An earlier release allowed any owner and mode. The clone gets the default
    owner if the source's is no longer allowed, and only read and write bits.
    """
    defaults = {
        "uid": settings.file_defaults.uid,
        "gid": settings.file_defaults.gid,
    }
    allowed = {
        field: file[field]
        if _is_allowed(field, file[field], settings)
        else defaults[field]
        for field in _FIELDS
    }
    mode = int(file["mode"], 8) & 0o666 | 0o600
    return {**file, **allowed, "mode": f"{mode:04o}"}


def not_allowed(
    session: orm.Session, settings: types.ServiceSettings
) -> dict[tuple[int, int], int]:
    """``(uid, gid)`` of shares that no create may name (any more), each
    with the number of shares."""
    uid = models.Share.file["uid"].as_integer()
    gid = models.Share.file["gid"].as_integer()
    statement = (
        sa.select(uid, gid, sa.func.count())
        .where(uid.is_not(None))
        .group_by(uid, gid)
    )
    return {
        (uid, gid): count
        for uid, gid, count in session.execute(statement)
        if not _is_allowed("uid", uid, settings)
        or not _is_allowed("gid", gid, settings)
    }


def _is_allowed(
    field: str, value: int, settings: types.ServiceSettings
) -> bool:
    default, ranges = _rule(field, settings)
    return value == default or any(value in each for each in ranges)


def _rule(
    field: str, settings: types.ServiceSettings
) -> tuple[int, Sequence[range]]:
    if field == "uid":
        return settings.file_defaults.uid, settings.allowed_owners.uids
    return settings.file_defaults.gid, settings.allowed_owners.gids


def _complaint(field: str, value: int, settings: types.ServiceSettings) -> str:
    default, ranges = _rule(field, settings)
    allowed = ", ".join(_text(each) for each in ranges) or "nothing"
    return (
        f"{field} {value} may not own a volume file here: [nfs]"
        f" allowed_{field}s of the appliance has {allowed}, and owner_{field}"
        f" is {default}."
    )


def _text(ids: range) -> str:
    return f"{ids[0]}-{ids[-1]}" if len(ids) > 1 else f"{ids[0]}"
