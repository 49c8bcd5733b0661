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

"""What keeps a command from running, in one sentence."""

from collections.abc import Iterator
import contextlib

from oslo_db import exception as db_exception
import sqlalchemy.exc

import acme_client


class CannotRun(Exception):
    """The message says why."""


@contextlib.contextmanager
def told() -> Iterator[None]:
    """:raises CannotRun: the database or the appliance does not answer."""
    try:
        yield
    except acme_client.ApiError as error:
        raise CannotRun(
            f"the appliance does not answer as it must: {error}"
        ) from error
    except (db_exception.DBError, sqlalchemy.exc.SQLAlchemyError) as error:
        # Later lines may have the whole statement.
        reason = str(error).strip().partition("\n")[0]
        raise CannotRun(
            f"Cinder's database does not answer: {reason}"
        ) from error
