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

"""SQLite with transactions that SQLAlchemy begins.

Otherwise the driver begins them, too late and always in the same mode.
SQLAlchemy's documentation recommends an event ("Serializable isolation /
Savepoints / Transactional DDL"); but with any listener, every statement
searches for others, which takes longer than to execute it.
"""

from typing import Any
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite import pysqlite

#: How long SQLite waits for another process (a backup, ``status``) that
#: holds the file, in milliseconds.
BUSY_TIMEOUT_MS: Final = 30_000

_DRIVER: Final = "sqlite+acme"


class Dialect(pysqlite.SQLiteDialect_pysqlite):
    """:param begin: the statement that begins a transaction."""

    supports_statement_cache = True

    def __init__(self, begin: str = "BEGIN", **options: Any) -> None:
        super().__init__(**options)
        self._begin = begin

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.execute(self._begin)

    # Faster than SQLAlchemy, which compiles these statements every time.

    def do_savepoint(self, connection: sa.Connection, name: str) -> None:
        connection.exec_driver_sql(f"SAVEPOINT {name}")

    def do_rollback_to_savepoint(
        self, connection: sa.Connection, name: str
    ) -> None:
        connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {name}")

    def do_release_savepoint(
        self, connection: sa.Connection, name: str
    ) -> None:
        connection.exec_driver_sql(f"RELEASE SAVEPOINT {name}")


registry.register(
    _DRIVER.replace("+", "."), Dialect.__module__, Dialect.__name__
)


def create_reader(url: sa.URL, **options: Any) -> sa.Engine:
    """An engine whose transactions see a snapshot and never wait."""
    return _create(url, begin="BEGIN", **options)


def create_writer(url: sa.URL, **options: Any) -> sa.Engine:
    """An engine whose transactions take the write lock when they begin.

    A transaction that reads before it writes would fail with "locked" if
    another wrote in between.
    """
    return _create(url, begin="BEGIN IMMEDIATE", **options)


def _create(url: sa.URL, **options: Any) -> sa.Engine:
    engine = sa.create_engine(url.set(drivername=_DRIVER), **options)
    sa.event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, record: Any) -> None:
    # The dialect begins transactions, not the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL: with WAL, NORMAL may lose the last commits in a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
