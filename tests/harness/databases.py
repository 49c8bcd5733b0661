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

"""The appliance's database, for one test after another.

SQLAlchemy compiles its statements once for each Database. That takes longer
than most tests, so a Database is used again, with other content.
"""

import functools
import os
import pathlib
import sqlite3
import tempfile
from typing import Any

import sqlalchemy as sa

from acme_appliance.db.session import Database

#: Where there is memory for it: hundreds of databases sync all the time.
FAST_FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Content:
    """All tables of an SQLite database at one moment, in memory.

    :param engine: that of the database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._copy = sqlite3.connect(":memory:", check_same_thread=False)
        with engine.connect() as connection:
            _driver(connection).backup(self._copy)

    def restore(self, engine: sa.Engine) -> None:
        """Replace all tables of a database, also while others read."""
        with engine.connect() as connection:
            self._copy.backup(_driver(connection))


def _driver(connection: Any) -> sqlite3.Connection:
    made: sqlite3.Connection = connection.connection.driver_connection
    return made


class _Databases:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=FAST_FOLDER)
        self._free: list[Database] = []
        self._count = 0
        first = self._new()
        first.upgrade()
        self._empty = Content(first.writers)
        self._free.append(first)

    def _new(self) -> Database:
        self._count += 1
        path = pathlib.Path(self._folder.name, f"{self._count}.db")
        return Database(f"sqlite:///{path}")

    def take(self) -> Database:
        database = self._free.pop() if self._free else self._new()
        self._empty.restore(database.writers)
        return database

    def give_back(self, database: Database) -> None:
        database.close()
        self._free.append(database)


@functools.cache
def _databases() -> _Databases:
    return _Databases()


def take() -> Database:
    """A migrated database in a file, without a row."""
    return _databases().take()


def give_back(database: Database) -> None:
    """Nobody uses it any more: the next test may have it."""
    _databases().give_back(database)
