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

"""Looking shares up, as far as a caller may see them."""

from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.db import models

_USABLE = (types.State.AVAILABLE, types.State.DEGRADED)


def not_found(share_id: str, pointer: str | None = None) -> problems.Problem:
    return problems.Problem(
        "share.not_found", f"There is no share {share_id}.", pointer=pointer
    )


def find_visible(
    session: orm.Session, caller: types.Caller, share_id: str
) -> models.Share | None:
    """The share, if it is there and the caller may see it."""
    row = session.get(models.Share, share_id)
    return row if row is not None and caller.sees(row.namespace) else None


def get_visible(
    session: orm.Session,
    caller: types.Caller,
    share_id: str,
    pointer: str | None = None,
) -> models.Share:
    """:raises problems.Problem: ``share.not_found``."""
    row = find_visible(session, caller, share_id)
    if row is None:
        raise not_found(share_id, pointer)
    return row


def check_usable(row: models.Share) -> None:
    """:raises problems.Problem: ``share.wrong_state``."""
    if row.state not in _USABLE:
        raise problems.Problem(
            "share.wrong_state",
            f"The share {row.id} is in state {row.state}: its data is not in"
            " the pool, or is only a part. It can only be deleted.",
        )
