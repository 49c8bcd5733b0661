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

"""Checks of Cinder's database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import Final

from cinder import context as cinder_context
from cinder.db import api as db
from oslo_db import exception as db_exception
import sqlalchemy.exc

from acme_cinder import recognition
from acme_cinder.checks import findings


def _database(scene: findings.Scene) -> Iterator[findings.Note]:
    context: Any = cinder_context.get_admin_context()
    try:
        db.volume_get_all(context, limit=1)
    except (db_exception.DBError, sqlalchemy.exc.SQLAlchemyError) as error:
        # Its text may have the whole statement in later lines.
        reason = str(error).strip().partition("\n")[0]
        yield findings.failed(
            f"Cinder's database does not answer: {reason}",
            "correct [database] connection; a new one is made by "
            "cinder-manage db sync",
        )
    else:
        yield findings.ok("Cinder's database answers")


def _volumes(scene: findings.Scene) -> Iterator[findings.Note]:
    known = recognition.Recognition(scene.api, scene.host, scene.cluster)
    if known.is_foreign():
        yield findings.failed(
            recognition.FOREIGN,
            'see "The appliance knows none of the volumes" in the page '
            "on troubleshooting",
        )
    else:
        where = scene.cluster or scene.host
        yield findings.ok(f"the appliance has the volumes of {where}")


DATABASE: Final = findings.Check("database", _database)
VOLUMES: Final = findings.Check("volumes", _volumes, ("database", "figures"))
