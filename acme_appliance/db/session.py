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

"""Database sessions: many readers, one writer, durable commits."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import pathlib
from typing import Any
from typing import Final
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance.db import sqlite
from acme_appliance.db.groupcommit import GroupCommit

#: How long a writer waits for earlier writers of this process.
WRITE_WAIT_SECONDS: Final = 30.0

#: The newest migration.
REVISION: Final = "0012"

_T = TypeVar("_T")


class TooNew(Exception):
    """The tables belong to a later release."""


class Database:
    """The only way to access the database; thread-safe.

    :param url: an SQLAlchemy URL, ``sqlite:////path`` or PostgreSQL. An
        in-memory SQLite is refused: each thread would have its own.
    """

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite and self.url.database in (None, "", ":memory:"):
            raise ValueError("the database needs a file")
        #: For write transactions; use :meth:`write`.
        self.writers: sa.Engine
        pool = {"pool_size": 16, "max_overflow": 64}
        if self.sqlite:
            self.engine = sqlite.create_reader(self.url, **pool)
            self.writers = sqlite.create_writer(self.url)
        else:
            self.engine = self.writers = sa.create_engine(self.url, **pool)
        self._commits = GroupCommit(self.writers)
        self._readers = orm.sessionmaker(self.engine, autoflush=False)

    @contextlib.contextmanager
    def read(self) -> Iterator[orm.Session]:
        """A session that sees one consistent state and never waits."""
        with self._readers() as session:
            yield session

    @contextlib.contextmanager
    def read_rows(self) -> Iterator[sa.Connection]:
        """Like :meth:`read`, without objects, which is several times
        cheaper."""
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[orm.Session]:
        """A transaction that is on disk when the block ends.

        An exception rolls it back. Writers take turns, and queued writers
        share a commit. So the block must be short and must not wait for
        anything else.

        :raises sqlalchemy.exc.TimeoutError: earlier writers took longer than
            WRITE_WAIT_SECONDS.
        """
        with self._commits.member(WRITE_WAIT_SECONDS) as session:
            yield session

    def run(self, work: Callable[[orm.Session], _T]) -> _T:
        """Like :meth:`write`, with a call instead of a block; cheaper with
        many writers. Another thread may run the call."""
        return self._commits.run(work, WRITE_WAIT_SECONDS)

    def check_writable(self, wait_seconds: float) -> None:
        """Commit an update that changes nothing.

        :raises sqlalchemy.exc.SQLAlchemyError: it failed: full, read-only,
            gone, or locked by others for longer than the wait.
        """
        with (
            self._commits.exclusive(wait_seconds),
            self.writers.connect() as connection,
        ):
            # Through the driver: SQLAlchemy would begin a transaction.
            driver: Any = connection.connection.driver_connection
            if self.sqlite:
                driver.execute(
                    f"PRAGMA busy_timeout = {int(wait_seconds * 1000)}"
                )
            try:
                _write_nothing(connection)
            finally:
                if self.sqlite:
                    driver.execute(
                        f"PRAGMA busy_timeout = {sqlite.BUSY_TIMEOUT_MS}"
                    )

    def upgrade(self) -> None:
        """Migrate the tables to this release. Idempotent.

        :raises TooNew: the tables belong to a later release.
        """
        # alembic is slow to import and rarely needed.
        if self.revision() == REVISION:
            return
        from alembic import command
        from alembic import util

        try:
            command.upgrade(self._alembic(), REVISION)
        except util.CommandError as error:
            raise TooNew(
                f"the database is at revision {self.revision()}, and this"
                f" release supports revisions up to {REVISION}: install the"
                " release that migrated it, or restore a backup"
            ) from error

    def revision(self) -> str | None:
        """The current migration of the tables; None: there are no tables."""
        with self.engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            query = sa.text("SELECT version_num FROM alembic_version")
            return connection.execute(query).scalar()

    def close(self) -> None:
        self.engine.dispose()
        self.writers.dispose()

    def _alembic(self) -> Any:
        from alembic import config as alembic_config

        config = alembic_config.Config()
        here = pathlib.Path(__file__).parent
        config.set_main_option("script_location", str(here / "migrations"))
        config.attributes["engine"] = self.writers
        return config


def _write_nothing(connection: sa.Connection) -> None:
    with connection.begin():
        # A rollback would not detect a full or read-only disk: SQLite writes
        # at the commit, even if no page has changed.
        connection.exec_driver_sql(
            "UPDATE alembic_version SET version_num = version_num"
        )
