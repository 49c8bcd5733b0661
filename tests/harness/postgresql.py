# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.
"""A PostgreSQL server of its own, from Debian's package."""

import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile

import sqlalchemy as sa

#: Debian keeps the programs of each release apart, and off the PATH.
_PROGRAMS = pathlib.Path("/usr/lib/postgresql")
#: It refuses to run as root; the package makes this user.
_USER = "postgres"
_TIMEOUT_SECONDS = 120


class Server:
    """Listens on a socket in its folder only; nothing of it is kept."""

    def __init__(self) -> None:
        self._count = 0
        self._programs = max(
            _PROGRAMS.glob("*/bin"), key=lambda path: int(path.parent.name)
        )
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="acme-pg-"))
        if os.geteuid() == 0:
            user = pwd.getpwnam(_USER)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C")
        # Nothing is to outlive the tests: not one commit needs the disk.
        options = f"-k {self._folder} -h '' -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "--wait", "-o", options, "-l", log)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """:returns: the URL of an empty database."""
        self._count += 1
        name = f"acme_{self._count}"
        root = sa.create_engine(
            self._url("postgres"), isolation_level="AUTOCOMMIT"
        )
        with root.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        root.dispose()
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{self._user}@/{database}?host={self._folder}"

    @property
    def _user(self) -> str:
        return self._folder.owner()

    def _run(self, program: str, *arguments: str) -> None:
        as_user = []
        if os.geteuid() == 0:
            as_user = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}"]
            as_user.append("--init-groups")
        subprocess.run(
            [
                *as_user,
                str(self._programs / program),
                f"--pgdata={self._folder / 'data'}",
                *arguments,
            ],
            check=True,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
        )
