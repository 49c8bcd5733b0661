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

"""Read, write, delete and list: the basis of all typed calls."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import re
import time
from typing import Any
from typing import TypeVar
import urllib.parse
import uuid

import requests.utils

from acme_client import errors
from acme_client import messages
from acme_client import models
from acme_client import requester
from acme_client import timing
from acme_client import transport

_T = TypeVar("_T")
_Updated = TypeVar("_Updated", models.Share, models.Snapshot)
#: Of a decoded body.
Reader = Callable[[models.Json], _T]
ReplyReader = Callable[[transport.Reply], _T]

#: Maximum size of a page.
PAGE_LIMIT = 1000
#: How long one request waits for a job.
JOB_HOLD_SECONDS = 30
#: An appliance that answers faster than this about an unfinished job does not
#: hold the request, so the client pauses.
_HELD_SECONDS = 1.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclasses.dataclass(frozen=True)
class Calls:
    """Calls with one deadline each; thread-safe.

    :ivar request_id: returns the X-Request-Id of the current call, or None.
    """

    requester: requester.Requester
    deadline_seconds: float
    request_id: Callable[[], str | None] | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    new_backoff: Callable[[], timing.Backoff] = timing.Backoff

    def begin(self) -> timing.CallContext:
        """:raises errors.NotSent: the caller's limit has passed."""
        seconds = timing.at_most(self.deadline_seconds)
        if seconds <= 0:
            raise errors.NotSent("no time is left for this call")
        return timing.CallContext(
            timing.Deadline(self.clock, seconds),
            self._valid_request_id(),
        )

    def read(self, request: transport.Request, reader: Reader[_T]) -> _T:
        return self.requester.perform(request, self.begin(), _body(reader))

    def write(
        self,
        request: transport.Request,
        reader: Reader[_T],
        result_path: str | None = None,
    ) -> _T:
        """Change a resource and return it.

        It comes from the reply; after a job it is read.

        :param result_path: where; default: at the request's path.
        """
        call = self.begin()
        done = self.requester.perform(request, call, _or_job(_body(reader)))
        if isinstance(done, models.Job):
            self._finish(done, call)
            path = result_path or request.path
            return self._read_back(path, call, reader)
        return done

    def update(
        self,
        path: str,
        patch: Mapping[str, Any],
        if_match: int | None,
        reader: Reader[_Updated],
    ) -> _Updated:
        """Merge ``patch`` into the resource at ``path``.

        A precondition that fails because an earlier attempt of this call
        succeeded is not an error.
        """
        request = messages.change("PATCH", path, patch, if_match=if_match)
        try:
            return self.write(request, reader)
        except errors.PreconditionFailed as exc:
            if not exc.may_have_been_applied:
                raise
            found = self.read(messages.get(path), reader)
            if not is_as_wanted(found, patch):
                raise
            return found

    def remove(
        self,
        resource: str,
        gone: tuple[str, ...],
        query: Mapping[str, str],
        if_match: int | None = None,
    ) -> bool:
        """Delete; the code ``gone`` counts as success.

        :returns: whether it existed.
        """

        def was_there(reply: transport.Reply) -> bool:
            requester.nothing(reply)
            return "Was-Absent" not in reply.headers

        request = messages.change(
            "DELETE", resource, if_match=if_match, query=query
        )
        return self._remove(
            request, gone, was_there, after_job=True, if_gone=False
        )

    def remove_from(
        self, resource: str, gone: tuple[str, ...], reader: Reader[_T]
    ) -> _T | None:
        """Like :meth:`remove`; returns what is left according to the reply.

        None if it does not say: after a job, or with a 204.
        """

        def read(reply: transport.Reply) -> _T | None:
            if reply.status == 200:
                return reader(reply.json())
            requester.nothing(reply)
            return None

        request = messages.change("DELETE", resource)
        return self._remove(request, gone, read, after_job=None, if_gone=None)

    def _remove(
        self,
        request: transport.Request,
        gone: tuple[str, ...],
        reader: ReplyReader[_T],
        *,
        after_job: _T,
        if_gone: _T,
    ) -> _T:
        call = self.begin()
        try:
            left = self.requester.perform(request, call, _or_job(reader))
            if not isinstance(left, models.Job):
                return left
            self._finish(left, call)
        except errors.NotFound as exc:
            if exc.code not in gone:
                raise
            return if_gone
        return after_job

    def pages(
        self, kind: str, filters: Mapping[str, str], reader: Reader[_T]
    ) -> Iterator[_T]:
        """All objects of ``/v1/<kind>``; each page is a separate call."""
        page = _page(models.list_of(kind, reader))
        query = {**filters, "limit": str(PAGE_LIMIT)}
        seen: set[str] = set()
        while True:
            call = self.begin()
            request = messages.get(messages.path(kind), query)
            items, marker = self.requester.perform(request, call, page)
            yield from items
            if marker is None:
                return
            if marker in seen:
                raise errors.ProtocolError(
                    f"the pages of {request.path} go round in a circle",
                    request_id=call.request_id,
                )
            seen.add(marker)
            query["marker"] = marker

    def _finish(self, job: models.Job, call: timing.CallContext) -> None:
        """Wait until the job of a 202 has succeeded.

        :raises errors.ProblemError: why it has not, typed as if the
            appliance had answered at once.
        :raises errors.JobUnfinished: the deadline came first.
        """
        backoff = self.new_backoff()
        while not job.finished:
            asked = self.clock()
            job = self._poll(job, call)
            if not job.finished and self.clock() - asked < _HELD_SECONDS:
                pause = backoff.next()
                self.sleep(min(pause, call.deadline.remaining()))
        if job.state != "succeeded":
            raise self._job_error(job, call)

    def _poll(self, job: models.Job, call: timing.CallContext) -> models.Job:
        """The job after a while.

        :raises errors.JobUnfinished: any error of the request, because it
            says nothing about the job.
        """
        request = messages.held_get(
            messages.path("jobs", job.id), JOB_HOLD_SECONDS
        )
        why: errors.ApiError | None = None
        if call.deadline.remaining() > _HELD_SECONDS:
            try:
                return self.requester.perform(
                    request, call, _body(models.Job.from_json)
                )
            except errors.ApiError as exc:
                why = exc
        raise errors.JobUnfinished(
            f"job {job.id} ({job.kind}) was {job.state} when last heard of, "
            f"within {call.deadline.seconds:.0f} s"
            + ("" if why is None else f"; then: {why.message}"),
            job_id=job.id,
            request_id=call.request_id,
        ) from why

    def _read_back(
        self, path: str, call: timing.CallContext, reader: Reader[_T]
    ) -> _T:
        """Read the resource after its job has finished."""
        try:
            return self.requester.perform(
                messages.get(path), call, _body(reader)
            )
        except errors.NotSent as exc:
            # Only the read was not sent.
            raise errors.OutcomeUnknown(
                f"the change was made, and then: {exc.message}",
                request_id=exc.request_id,
            ) from exc

    def _job_error(
        self, job: models.Job, call: timing.CallContext
    ) -> errors.ProblemError:
        try:
            return errors.from_problem(
                self.requester.clean(job.problem or {}),
                request_id=call.request_id,
                job_id=job.id,
            )
        except ValueError:
            return errors.JobFailed(
                f"job {job.id} ({job.kind}) ended {job.state} without "
                "saying why",
                code=f"job.{job.state}",
                status=409,
                request_id=call.request_id,
                job_id=job.id,
            )

    def _valid_request_id(self) -> str:
        given = self.request_id() if self.request_id is not None else None
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return f"req-{uuid.uuid4()}"


def _body(reader: Reader[_T]) -> ReplyReader[_T]:
    return lambda reply: reader(reply.json())


def _or_job(
    reader: ReplyReader[_T],
) -> ReplyReader[_T | models.Job]:
    """The job of a 202, else what the reader takes from the reply."""

    def read(reply: transport.Reply) -> _T | models.Job:
        if reply.status == 202:
            return models.Job.from_json(reply.json())
        return reader(reply)

    return read


def _page(
    reader: Reader[_T],
) -> ReplyReader[tuple[_T, str | None]]:
    """A page's objects, and the marker of the next page."""
    return lambda reply: (reader(reply.json()), _next_marker(reply))


def _next_marker(reply: transport.Reply) -> str | None:
    """The marker in the Link to the next page, None on the last one.

    Only the marker is used: the rest of the link could send our credential to
    another host.
    """
    for link in requests.utils.parse_header_links(
        reply.headers.get("Link", "")
    ):
        if "next" in link.get("rel", "").split():
            query = urllib.parse.urlsplit(link.get("url", "")).query
            markers = urllib.parse.parse_qs(query).get("marker")
            return markers[-1] if markers else None
    return None


class StatsCache:
    """The last stats and their ETag, so that unchanged ones are a 304."""

    def __init__(self) -> None:
        self._last: tuple[str, models.Stats] | None = None

    def refresh(self, calls: Calls) -> models.Stats:
        last = self._last
        request = messages.get("/v1/stats")
        if last is not None:
            request = request.with_headers(If_None_Match=last[0])

        def read(reply: transport.Reply) -> models.Stats:
            if reply.status == 304 and last is not None:
                return last[1]
            stats = models.Stats.from_json(reply.json())
            etag = reply.headers.get("ETag")
            self._last = (etag, stats) if etag else None
            return stats

        return calls.requester.perform(request, calls.begin(), read)


def is_as_wanted(
    found: models.Share | models.Snapshot, patch: Mapping[str, Any]
) -> bool:
    """Whether a merge patch would change nothing."""
    file = getattr(found, "file", None)
    return all(
        (
            patch.get("name", found.name) == found.name,
            patch.get("pool", found.pool) == found.pool,
            patch.get("size_bytes", found.size_bytes) == found.size_bytes,
            "qos" not in patch
            or (getattr(found, "qos", None) or models.Qos())
            == models.Qos(**patch["qos"]),
            "file" not in patch
            or (file is not None and file.name == patch["file"]["name"]),
            all(
                found.labels.get(key) == value
                for key, value in patch.get("labels", {}).items()
            ),
        )
    )
