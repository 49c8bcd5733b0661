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

"""The database and the service, for commands beside a running server."""

from collections.abc import Iterator
import contextlib
import os
from typing import TYPE_CHECKING

from oslo_config import cfg

from acme_appliance import conf as options
from acme_appliance.cmd.common import CommandError
from acme_appliance.cmd.common import Exit

if TYPE_CHECKING:
    from acme_appliance.db.session import Database
    from acme_appliance.service import Service


@contextlib.contextmanager
def open_database(conf: cfg.ConfigOpts) -> "Iterator[Database]":
    """:raises CommandError: it cannot be opened, and why."""
    import sqlalchemy.exc

    from acme_appliance import composition
    from acme_appliance.db import session

    try:
        database = composition.build_database(conf)
    except session.TooNew as error:
        raise CommandError(str(error)) from error
    except (OSError, sqlalchemy.exc.SQLAlchemyError) as error:
        who = "" if os.geteuid() == 0 else " Are you root?"
        reason = str(error).splitlines()[0]
        raise CommandError(
            f"the database in {conf.state_path} cannot be used: {reason}."
            f"{who} It is set by [DEFAULT] state_path and [database] url."
        ) from error
    try:
        yield database
    finally:
        database.close()


@contextlib.contextmanager
def open_service(conf: cfg.ConfigOpts) -> "Iterator[Service]":
    """The service, not started: it changes nothing by itself.

    :raises CommandError: the configuration is not complete, or the
        database cannot be opened.
    """
    from acme_appliance import composition

    try:
        options.check(conf)
    except options.ConfigurationError as error:
        raise CommandError(str(error), Exit.CONFIGURATION) from error
    with open_database(conf) as database:
        yield composition.build_service(conf, database)
