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

"""The database and the service for commands other than ``serve``."""

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
    """Open the database; create or migrate it if needed.

    :raises CommandError: it cannot be opened.
    """
    from acme_appliance import composition
    from acme_appliance.db import session

    try:
        with _database_errors(conf):
            database = composition.build_database(conf)
    except session.TooNew as error:
        raise CommandError(str(error)) from error
    with contextlib.closing(database):
        yield database


@contextlib.contextmanager
def open_service(conf: cfg.ConfigOpts) -> "Iterator[Service]":
    """The service, not started: nothing runs in the background.

    :raises CommandError: the configuration is incomplete, or the database
        cannot be opened.
    """
    from acme_appliance import composition

    check(conf)
    with open_database(conf) as database:
        yield composition.build_service(conf, database)


@contextlib.contextmanager
def inspect_service(conf: cfg.ConfigOpts) -> "Iterator[Service]":
    """Like :func:`open_service`, but creates and migrates nothing: a server
    of another release may be using the database.

    :raises CommandError: also if the appliance was never started.
    """
    from acme_appliance import composition
    from acme_appliance.db import session

    check(conf)
    with contextlib.closing(
        session.Database(options.database_url(conf))
    ) as database:
        with _database_errors(conf):
            _check_started(conf, database)
        yield composition.build_service(conf, database)


def check(conf: cfg.ConfigOpts) -> None:
    """:raises CommandError: the configuration is incomplete."""
    try:
        options.check(conf)
    except options.ConfigurationError as error:
        found = ", ".join(conf.config_file or ()) or (
            f"there is no {options.DEFAULT_FILE}; give --config-file FILE,"
            " or let acme-appliance init write one"
        )
        raise CommandError(
            f"the configuration is incomplete ({found}):\n{error}",
            Exit.CONFIGURATION,
        ) from error


def _check_started(conf: cfg.ConfigOpts, database: "Database") -> None:
    from acme_appliance import composition
    from acme_appliance.db import session

    try:
        os.stat(composition.system_id_file(options.state_path(conf)))
        if database.sqlite:
            # SQLite would create it.
            os.stat(database.url.database or "")
    except FileNotFoundError as error:
        raise CommandError(
            f"the appliance of {conf.state_path} has not been started yet:"
            f" there is no {error.filename}"
        ) from error
    revision = database.revision()
    if revision != session.REVISION:
        raise CommandError(
            f"the database belongs to another release: its revision is"
            f" {revision}, this release needs {session.REVISION}. Use the"
            " acme-appliance of the server; or restart the server, which"
            " migrates the database."
        )


@contextlib.contextmanager
def _database_errors(conf: cfg.ConfigOpts) -> Iterator[None]:
    """Turn errors of the database into CommandError."""
    import sqlalchemy.exc

    try:
        yield
    except (OSError, sqlalchemy.exc.SQLAlchemyError) as error:
        hint = "" if os.geteuid() == 0 else " Are you root?"
        reason = str(error).splitlines()[0]
        raise CommandError(
            f"the database in {conf.state_path} cannot be used: {reason}."
            f"{hint} See [DEFAULT] state_path and [database] url."
        ) from error
