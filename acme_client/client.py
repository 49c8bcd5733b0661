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

"""The calls of the API, typed."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import copy
import dataclasses
import time
from types import TracebackType
from typing import TypeVar

import requests.adapters

from acme_client import about
from acme_client import calls
from acme_client import checks
from acme_client import credentials as proofs
from acme_client import endpoints as address_book
from acme_client import errors
from acme_client import groups
from acme_client import messages
from acme_client import models
from acme_client import requester
from acme_client import timing
from acme_client import transport

_T = TypeVar("_T")

#: How long :meth:`Client.close` may take to log out.
_CLOSE_SECONDS = 10.0


class Client(groups.GroupCalls):
    """A client of one appliance; thread-safe.

    Every method is one call: it has ``deadline_seconds`` for all its
    requests, waits, retries and failovers, and raises only
    :class:`~acme_client.errors.ApiError`. Calls that change
    something can be repeated after any error; they end in the same state.

    :param addresses: management addresses of the same appliance,
        ``https://HOST[:PORT]``. The one that answered last is asked first.
    :param credentials: a :class:`BearerToken` or a :class:`BasicLogin`.
    :param verify: True for the system's CAs, or a CA file (or directory);
        False only to try something out.
    :param connect_timeout_seconds: for one connection.
    :param read_timeout_seconds: for one silence of the appliance.
    :param deadline_seconds: for a whole call; see also
        :meth:`with_deadline`.
    :param request_id: returns the X-Request-Id of the current call; if it
        returns None or an invalid id, the client generates one.
    :param pool_size: connections to keep open; more are opened when needed.
    :param max_reply_bytes: a longer reply is a ProtocolError.
    :param ca_option: the name of ``verify`` for the caller's users, for TLS
        errors.
    :param adapter_factory: creates the requests adapter that sends.
    :param sleep, clock, new_backoff: for tests.
    :raises ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        credentials: proofs.Credentials,
        *,
        verify: bool | str = True,
        connect_timeout_seconds: float = 5.0,
        read_timeout_seconds: float = 60.0,
        deadline_seconds: float = 300.0,
        request_id: Callable[[], str | None] | None = None,
        pool_size: int = 16,
        max_reply_bytes: int = 32 * 1024 * 1024,
        ca_option: str = "verify",
        adapter_factory: Callable[[], requests.adapters.BaseAdapter]
        | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        new_backoff: Callable[[], timing.Backoff] = timing.Backoff,
    ):
        checks.check_verify(verify, ca_option)
        checks.check_seconds(
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            deadline_seconds=deadline_seconds,
        )
        book = address_book.Endpoints(addresses, clock)
        sender = transport.Transport(
            verify=verify,
            ca_option=ca_option,
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            max_reply_bytes=max_reply_bytes,
            adapter_factory=adapter_factory
            or checks.adapter_factory(len(book.addresses), pool_size),
        )
        self._stats = calls.StatsCache()
        self._calls = calls.Calls(
            requester.Requester(
                sender,
                book,
                credentials,
                sleep=sleep,
                new_backoff=new_backoff,
            ),
            deadline_seconds,
            request_id=request_id,
            clock=clock,
            sleep=sleep,
            new_backoff=new_backoff,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def with_deadline(self, deadline_seconds: float) -> "Client":
        """The same client, connections and session, with another deadline.

        Only the original needs to be closed.
        """
        checks.check_seconds(deadline_seconds=deadline_seconds)
        twin = copy.copy(self)
        twin._calls = dataclasses.replace(
            self._calls, deadline_seconds=deadline_seconds
        )
        return twin

    def close(self) -> None:
        """Log out if logged in, and close the connections."""
        self._calls.requester.close(
            self.with_deadline(_CLOSE_SECONDS)._calls.begin()
        )

    # -- the appliance ---------------------------------------------------

    def get_own_token(self) -> models.OwnToken:
        """The name, scope and namespace of the credential.

        :raises BadRequest, NotFound: with status 404 or 405: the appliance is
            older than this call.
        """
        return self._calls.read(
            messages.get("/v1/tokens/self"), models.OwnToken.from_json
        )

    def get_versions(self) -> about.Versions:
        """The versions of the API, and the time at the appliance."""
        return self._calls.requester.perform(
            messages.get("/"), self._calls.begin(), about.Versions.from_reply
        )

    def get_system(self) -> about.System:
        """The appliance's identity, product, version and limits."""
        return self._calls.read(
            messages.get("/v1/system"), about.System.from_json
        )

    def get_stats(self) -> models.Stats:
        """The figures; unchanged ones cost only a 304."""
        return self._stats.refresh(self._calls)

    # -- shares ----------------------------------------------------------

    def create_share(
        self,
        share_id: str,
        *,
        name: str,
        size_bytes: int | None = None,
        pool: str | None = None,
        file: models.VolumeFileSpec | None = None,
        source: models.Source | None = None,
        labels: Mapping[str, str] | None = None,
        qos: models.Qos | None = None,
        group_id: str | None = None,
    ) -> models.Share:
        """Create a share, or ensure that it exists.

        :param size_bytes: default with a source: its size.
        :param pool: default with a source: its pool.
        :param group_id: a group in the same pool to put it into.
        :raises AlreadyExists: the id belongs to another share, or was
            created with other arguments.
        :raises NoSpace, LimitReached: nothing was created.
        """
        body = messages.without_none(
            name=name,
            size_bytes=size_bytes,
            pool=pool,
            file=None if file is None else file.to_json(),
            source=None if source is None else source.to_json(),
            labels=None if labels is None else dict(labels),
            qos=None if qos is None else qos.to_json(),
            group_id=group_id,
        )
        path = messages.path("shares", share_id)
        return self._calls.write(
            messages.change("PUT", path, body), models.Share.from_json
        )

    def get_share(self, share_id: str) -> models.Share:
        """:raises NotFound: ``share.not_found``."""
        return self._calls.read(
            messages.get(messages.path("shares", share_id)),
            models.Share.from_json,
        )

    def find_share(self, share_id: str) -> models.Share | None:
        return _or_none("share.not_found", self.get_share, share_id)

    def list_shares(
        self,
        *,
        name: str | None = None,
        pool: str | None = None,
        group_id: str | None = None,
        origin_id: str | None = None,
        state: str | None = None,
        holder: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[models.Share]:
        """Iterate over shares by id, fetched page by page.

        Each page has its own deadline. Shares that are created or deleted
        during the iteration may or may not appear; no other is missed.

        :param holder: of an access rule that the shares have.
        """
        filters = messages.without_none(
            name=name,
            pool=pool,
            group_id=group_id,
            origin_id=origin_id,
            state=state,
            holder=holder,
        )
        return self._calls.pages(
            "shares",
            filters | messages.label_filters(labels),
            models.Share.from_json,
        )

    def update_share(
        self,
        share_id: str,
        *,
        name: str | None = None,
        size_bytes: int | None = None,
        labels: Mapping[str, str | None] | None = None,
        file_name: str | None = None,
        qos: models.Qos | None = None,
        if_match: int | None = None,
    ) -> models.Share:
        """Set what is not None; the values are absolute.

        :param size_bytes: can only grow.
        :param labels: those to set; None as a value removes one.
        :param qos: all limits; an empty one lifts them.
        :param if_match: the generation that the share must still have.
        :raises ShrinkRefused, Degraded, NotFound, PreconditionFailed: nothing
            was changed. A precondition that fails because an earlier attempt
            of this call succeeded is not an error.
        """
        body = messages.without_none(
            name=name,
            size_bytes=size_bytes,
            labels=None if labels is None else dict(labels),
            file=None if file_name is None else {"name": file_name},
            qos=None if qos is None else qos.to_json(),
        )
        path = messages.path("shares", share_id)
        return self._calls.update(path, body, if_match, models.Share.from_json)

    def delete_share(self, share_id: str, *, cascade: bool = False) -> bool:
        """Delete the share; absent is success.

        :param cascade: with its snapshots.
        :returns: whether it existed, according to the appliance. After a lost
            reply this call itself may have deleted it before.
        :raises InUse: it has access rules.
        :raises HasSnapshots: it has snapshots, and cascade is False.
        """
        query = {"snapshots": "cascade" if cascade else "fail"}
        return self._calls.remove(
            messages.path("shares", share_id), ("share.not_found",), query
        )

    def revert_share(
        self, share_id: str, revert_id: str, snapshot_id: str
    ) -> models.Share:
        """Give the share the content of its snapshot again, once.

        :param revert_id: a UUID; a new one reverts anew, one that was used
            reverts nothing, whatever was written since.
        :raises InUse: the share has access rules.
        :raises Unsupported: the pool does not have ``share.revert``.
        :raises AlreadyExists: the id belongs to a revert to another
            snapshot.
        :raises NotFound: ``share.not_found``, ``snapshot.not_found``.
        """
        path = messages.path("shares", share_id, "reverts", revert_id)
        body = {"snapshot_id": snapshot_id}
        return self._calls.write(
            messages.change("PUT", path, body),
            models.Share.from_json,
            messages.path("shares", share_id),
        )

    def move_share(self, share_id: str, pool: str) -> models.Share:
        """Move the share to another pool of the appliance.

        Copies all data, so this may need a long deadline. After
        :class:`JobUnfinished` the same call waits again.

        :raises InUse: the share has access rules.
        :raises HasSnapshots: the share has snapshots.
        :raises Unsupported: one of the pools does not have
            ``share.move_pool``, or lacks what the share needs.
        :raises NoSpace: the pool is full.
        :raises NotFound: ``share.not_found``, ``pool.not_found``.
        :raises JobFailed: ``job.cancelled``. In all these cases the share
            stays where it is.
        """
        path = messages.path("shares", share_id)
        return self._calls.write(
            messages.change("PATCH", path, {"pool": pool}),
            models.Share.from_json,
        )

    # -- jobs ------------------------------------------------------------

    def get_job(self, job_id: str) -> models.Job:
        """:raises NotFound: ``job.not_found``."""
        return self._calls.read(
            messages.get(messages.path("jobs", job_id)), models.Job.from_json
        )

    def cancel_job(self, job_id: str) -> models.Job:
        """Cancel a job that is queued, or a move that copies.

        :returns: the job, cancelled or about to be.
        :raises Conflict: ``job.not_cancellable``.
        """
        path = messages.path("jobs", job_id, "cancel")
        return self._calls.read(
            messages.change("POST", path), models.Job.from_json
        )

    # -- access ----------------------------------------------------------

    def grant_access(
        self, share_id: str, holder: str, clients: Sequence[str], level: str
    ) -> models.GrantedAccess:
        """Let the holder's clients mount the share; return the locations.

        Replaces this holder's rule and changes no other.

        :param clients: IP addresses or CIDR networks.
        :param level: ``rw`` or ``ro``.
        """
        path = messages.path("shares", share_id, "access", holder)
        body = {"clients": list(clients), "level": level}
        return self._calls.write(
            messages.change("PUT", path, body), models.GrantedAccess.from_json
        )

    def revoke_access(
        self, share_id: str, holder: str
    ) -> Mapping[str, models.AccessRule] | None:
        """Revoke the holder's access; absent is success.

        :returns: the remaining rules of the share, by holder; None if the
            appliance did not say, or the share is gone.
        """
        path = messages.path("shares", share_id, "access", holder)
        return self._calls.remove_from(
            path,
            ("access.not_found", "share.not_found"),
            models.access_rules,
        )

    def grant_snapshot_access(
        self, snapshot_id: str, holder: str, clients: Sequence[str]
    ) -> models.GrantedSnapshotAccess:
        """As :meth:`grant_access`, to read a snapshot.

        :raises BadRequest: the pool has no feature ``snapshot.export``.
        """
        path = messages.path("snapshots", snapshot_id, "access", holder)
        body = {"clients": list(clients), "level": "ro"}
        return self._calls.write(
            messages.change("PUT", path, body),
            models.GrantedSnapshotAccess.from_json,
        )

    def revoke_snapshot_access(
        self, snapshot_id: str, holder: str
    ) -> Mapping[str, models.AccessRule] | None:
        """As :meth:`revoke_access`."""
        path = messages.path("snapshots", snapshot_id, "access", holder)
        return self._calls.remove_from(
            path,
            ("access.not_found", "snapshot.not_found"),
            models.access_rules,
        )

    # -- snapshots -------------------------------------------------------

    def create_snapshot(
        self,
        snapshot_id: str,
        share_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> models.Snapshot:
        """Take a snapshot, or ensure that it exists.

        :param name: default: the id.
        :raises AlreadyExists: the id belongs to another snapshot.
        :raises NotFound: ``share.not_found``.
        :raises LimitReached, NoSpace: nothing was created.
        """
        body = messages.without_none(
            share_id=share_id,
            name=snapshot_id if name is None else name,
            labels=None if labels is None else dict(labels),
        )
        path = messages.path("snapshots", snapshot_id)
        return self._calls.write(
            messages.change("PUT", path, body), models.Snapshot.from_json
        )

    def get_snapshot(self, snapshot_id: str) -> models.Snapshot:
        """:raises NotFound: ``snapshot.not_found``."""
        return self._calls.read(
            messages.get(messages.path("snapshots", snapshot_id)),
            models.Snapshot.from_json,
        )

    def find_snapshot(self, snapshot_id: str) -> models.Snapshot | None:
        """As :meth:`get_snapshot`; None: there is none."""
        return _or_none("snapshot.not_found", self.get_snapshot, snapshot_id)

    def list_snapshots(
        self,
        *,
        share_id: str | None = None,
        name: str | None = None,
        state: str | None = None,
    ) -> Iterator[models.Snapshot]:
        """Snapshots by id, as :meth:`list_shares`."""
        return self._calls.pages(
            "snapshots",
            messages.without_none(share_id=share_id, name=name, state=state),
            models.Snapshot.from_json,
        )

    def update_snapshot(
        self,
        snapshot_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        if_match: int | None = None,
    ) -> models.Snapshot:
        """Like :meth:`update_share`."""
        body = messages.without_none(
            name=name, labels=None if labels is None else dict(labels)
        )
        path = messages.path("snapshots", snapshot_id)
        return self._calls.update(
            path, body, if_match, models.Snapshot.from_json
        )

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete the snapshot; absent is success.

        :returns: whether it existed, as for a share.
        :raises InUse: it has access rules.
        """
        return self._calls.remove(
            messages.path("snapshots", snapshot_id),
            ("snapshot.not_found",),
            {},
        )


def _or_none(code: str, get: Callable[[str], _T], id_: str) -> _T | None:
    """None if the appliance answers with this code.

    Any other 404 has another cause and is raised.
    """
    try:
        return get(id_)
    except errors.NotFound as exc:
        if exc.code != code:
            raise
        return None
