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

"""Credentials, stored as hashes.

A token has 256 random bits, so a plain SHA-256 is enough; a slow hash only
protects guessable secrets. An operator puts a *long* token into a
configuration. A *session* token is short-lived; clients get it for a long
one.
"""

from collections.abc import Callable
import dataclasses
import datetime
import hashlib
import re
import secrets
from typing import Any
from typing import Final
import uuid

import sqlalchemy as sa
from sqlalchemy import orm

from acme_appliance import problems
from acme_appliance.db import models
from acme_appliance.db import session

TOKEN_PATTERN: Final = re.compile(r"acme_[A-Za-z0-9_-]{43}")
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")

#: Maximum number of valid long tokens per name: the old and the new one.
MAX_LONG_TOKENS: Final = 2
#: Maximum number of sessions per name; a new one replaces the oldest.
MAX_SESSIONS: Final = 1000
#: How long to keep an ended session, to report "expired", not "invalid".
_KEEP_ENDED: Final = datetime.timedelta(days=1)
_PRUNE_BATCH: Final = 500


class TokenError(Exception):
    """The command failed; the text says why."""


@dataclasses.dataclass(frozen=True)
class Credential:
    """A token without its secret."""

    id: str
    name: str
    scope: str
    namespace: str | None
    kind: str
    created_at: datetime.datetime
    expires_at: datetime.datetime | None
    revoked_at: datetime.datetime | None

    def state(self, now: datetime.datetime) -> str:
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "valid"


def parse_scope(text: str) -> tuple[str, str | None]:
    """``admin``, ``operator``, ``metrics`` or ``driver:NAMESPACE``.

    :raises TokenError: for anything else.
    """
    scope, _, namespace = text.partition(":")
    if scope == "driver" and NAME_PATTERN.fullmatch(namespace):
        return scope, namespace
    if text in ("admin", "operator", "metrics"):
        return text, None
    raise TokenError(
        f"scope {text!r} is not known: use admin, operator, metrics or"
        " driver:NAMESPACE, for example driver:cinder-a"
    )


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _utcnow() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class TokenStore:
    """The tokens of one appliance; thread-safe.

    :param utcnow: aware time in UTC.
    """

    def __init__(
        self,
        database: session.Database,
        *,
        utcnow: Callable[[], datetime.datetime] = _utcnow,
    ) -> None:
        self._database = database
        self._utcnow = utcnow
        #: How often this process has revoked something.
        self.revocations = 0
        table = models.Token.__table__
        columns = sa.select(*_columns(table))
        self._by_hash = columns.where(table.c.hash == sa.bindparam("hash"))
        #: Locks the row, where the database has more than one writer.
        self._by_id = columns.where(
            table.c.id == sa.bindparam("id")
        ).with_for_update()

    def create(
        self,
        name: str,
        scope: str,
        namespace: str | None = None,
        *,
        lifetime: datetime.timedelta | None = None,
    ) -> tuple[str, Credential]:
        """Create a long token; return its secret and its description.

        :raises TokenError: the name is invalid, has two valid tokens, or is
            in use with another scope.
        """
        if not NAME_PATTERN.fullmatch(name):
            raise TokenError(
                f"name {name!r} is not usable: letters, digits and ._@-,"
                " at most 63, the first a letter or digit"
            )
        now = self._utcnow()
        with self._database.write() as writer:
            valid = [c for c in self._long(writer, name) if _valid(c, now)]
            if len(valid) >= MAX_LONG_TOKENS:
                raise TokenError(
                    f"{name} already has {len(valid)} valid tokens: revoke"
                    f" the older first (acme-appliance token revoke"
                    f" {valid[0].id})"
                )
            if any(
                (c.scope, c.namespace) != (scope, namespace) for c in valid
            ):
                raise TokenError(
                    f"{name} has a valid token with another scope: use"
                    " another name, or revoke that one first"
                    f" (acme-appliance token revoke {name})"
                )
            expires_at = now + lifetime if lifetime else None
            return self._insert(
                writer, name, scope, namespace, "long", expires_at
            )

    def authenticate(self, secret: str) -> Credential:
        """Return the token's credential.

        :raises Problem: ``auth.invalid`` or ``auth.expired``.
        """
        return self.authenticate_hash(hash_secret(secret))

    def authenticate_hash(self, digest: str) -> Credential:
        """Like ``authenticate``, for the hash of a secret."""
        with self._database.read() as reader:
            row = reader.execute(self._by_hash, {"hash": digest}).first()
        return _valid_credential(row, self._utcnow())

    def is_valid(self, credential: Credential) -> bool:
        """Check only the credential itself, not whether it was revoked."""
        return _valid(credential, self._utcnow())

    def start_session(
        self, long: Credential, lifetime: datetime.timedelta
    ) -> tuple[str, Credential]:
        """Create a session with the same rights; it never outlives its
        parent.

        :raises Problem: ``auth.invalid`` or ``auth.expired``: the parent has
            ended.
        """
        now = self._utcnow()
        expires_at = now + lifetime
        if long.expires_at is not None:
            expires_at = min(expires_at, long.expires_at)
        with self._database.write() as writer:
            # In the same transaction, so that no revocation in between misses
            # the session.
            parent = writer.execute(self._by_id, {"id": long.id}).first()
            _valid_credential(parent, now)
            self._prune(writer, now)
            self._end_oldest(writer, long.name, now)
            return self._insert(
                writer,
                long.name,
                long.scope,
                long.namespace,
                "session",
                expires_at,
            )

    def end_session(self, token_id: str) -> None:
        """Idempotent."""
        with self._database.write() as writer:
            self._revoke(writer, models.Token.id == token_id)
        self.revocations += 1

    def list_long(self) -> list[Credential]:
        """The long tokens, including ended ones, by name and age."""
        with self._database.read() as reader:
            return self._long(reader)

    def revoke(self, name_or_id: str) -> list[Credential]:
        """Revoke a long token by id, or all of a name, and their sessions.

        All sessions of the name end; clients with its other token simply log
        in again.

        :returns: the tokens that were valid.
        :raises TokenError: there is no such name or id.
        """
        now = self._utcnow()
        with self._database.write() as writer:
            found = [
                credential
                for credential in self._long(writer)
                if name_or_id in (credential.id, credential.name)
            ]
            if not found:
                raise TokenError(
                    f"there is no token {name_or_id}: see"
                    " acme-appliance token list"
                )
            for credential in found:
                self._revoke(writer, models.Token.id == credential.id)
            self._revoke(
                writer,
                models.Token.name == found[0].name,
                models.Token.kind == "session",
            )
        self.revocations += 1
        return [credential for credential in found if _valid(credential, now)]

    def _long(
        self, reader: orm.Session, name: str | None = None
    ) -> list[Credential]:
        query = sa.select(*_columns(models.Token.__table__)).where(
            models.Token.kind == "long"
        )
        if name is not None:
            query = query.where(models.Token.name == name)
        query = query.order_by(models.Token.name, models.Token.created_at)
        return [_credential(row) for row in reader.execute(query)]

    def _insert(
        self,
        writer: orm.Session,
        name: str,
        scope: str,
        namespace: str | None,
        kind: str,
        expires_at: datetime.datetime | None,
    ) -> tuple[str, Credential]:
        secret = "acme_" + secrets.token_urlsafe(32)
        credential = Credential(
            id=str(uuid.uuid4()),
            name=name,
            scope=scope,
            namespace=namespace,
            kind=kind,
            created_at=self._utcnow(),
            expires_at=expires_at,
            revoked_at=None,
        )
        writer.execute(
            sa.insert(models.Token),
            [{**vars(credential), "hash": hash_secret(secret)}],
        )
        return secret, credential

    def _revoke(
        self, writer: orm.Session, *conditions: sa.ColumnElement[bool]
    ) -> None:
        writer.execute(
            sa.update(models.Token)
            .where(models.Token.revoked_at.is_(None), *conditions)
            .values(revoked_at=self._utcnow())
            .execution_options(synchronize_session=False)
        )

    def _prune(self, writer: orm.Session, now: datetime.datetime) -> None:
        ended = (
            sa.select(models.Token.id)
            .where(
                models.Token.kind == "session",
                models.Token.expires_at < now - _KEEP_ENDED,
            )
            .limit(_PRUNE_BATCH)
        )
        writer.execute(
            sa.delete(models.Token)
            .where(models.Token.id.in_(ended))
            .execution_options(synchronize_session=False)
        )

    def _end_oldest(
        self, writer: orm.Session, name: str, now: datetime.datetime
    ) -> None:
        surplus = (
            sa.select(models.Token.id)
            .where(
                models.Token.name == name,
                models.Token.kind == "session",
                models.Token.revoked_at.is_(None),
                models.Token.expires_at > now,
            )
            .order_by(models.Token.created_at.desc())
            .offset(MAX_SESSIONS - 1)
        )
        ids = list(writer.scalars(surplus))
        if ids:
            self._revoke(writer, models.Token.id.in_(ids))


def _columns(table: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    return [table.c[field.name] for field in dataclasses.fields(Credential)]


def _credential(row: Any) -> Credential:
    return Credential(*row)


def _valid_credential(row: Any, now: datetime.datetime) -> Credential:
    """:raises Problem: ``auth.invalid`` or ``auth.expired``."""
    if row is None:
        raise problems.Problem("auth.invalid", "This token is unknown.")
    credential = _credential(row)
    state = credential.state(now)
    if state == "expired":
        raise problems.Problem("auth.expired", "This token has expired.")
    if state != "valid":
        raise problems.Problem("auth.invalid", "This token was revoked.")
    return credential


def _valid(credential: Credential, now: datetime.datetime) -> bool:
    return credential.state(now) == "valid"
