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

"""Deadlines and pauses of a call."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import contextvars
import dataclasses
import datetime
import email.utils
import math
import random
import time

#: The first and the longest pause between rounds.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
#: Requested pauses are extended by up to this fraction, so that clients do
#: not return all at once.
RETRY_AFTER_JITTER = 0.25


class Deadline:
    """The moment by which a whole call, with all its retries, must end."""

    def __init__(self, clock: Callable[[], float], seconds: float):
        self._clock = clock
        self._end = clock() + seconds
        self.seconds = seconds

    def elapsed(self) -> float:
        """Seconds since its creation."""
        return self.seconds - self.remaining()

    def share(self, count: int) -> "Deadline":
        """A deadline after one of ``count`` equal parts of the rest."""
        return Deadline(self._clock, self.remaining() / count)

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._end - self._clock())

    @property
    def passed(self) -> bool:
        return self.remaining() <= 0


#: Per (native or green) thread.
_limit: contextvars.ContextVar[Deadline | None] = contextvars.ContextVar(
    "acme_time_limit", default=None
)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Limit the total time of all calls that begin in this block.

    If limits nest, the earlier end applies.
    """
    token = _limit.set(Deadline(time.monotonic, at_most(seconds)))
    try:
        yield
    finally:
        _limit.reset(token)


def limited_to_share(share: float) -> contextlib.AbstractContextManager[None]:
    """Like :func:`limited`, to a fraction of the current limit, if any."""
    return limited(share * at_most(math.inf))


def at_most(seconds: float) -> float:
    """So many seconds, or the rest of the limit if that is less."""
    limit = _limit.get()
    return seconds if limit is None else min(seconds, limit.remaining())


@dataclasses.dataclass(frozen=True)
class CallContext:
    """One call; its requests share the deadline and the X-Request-Id."""

    deadline: Deadline
    request_id: str


class Backoff:
    """Pauses that double, with full jitter."""

    def __init__(self, jitter: Callable[[], float] = random.random):
        self._jitter = jitter
        self._longest = FIRST_PAUSE_SECONDS

    def next(self, at_least: float | None = None) -> float:
        """The next pause in seconds.

        :param at_least: the pause that the appliance requested, if any; it is
            extended by up to a quarter. A tiny value is ignored, so that the
            client does not flood the appliance.
        """
        if at_least is not None and at_least >= FIRST_PAUSE_SECONDS:
            return at_least * (1 + RETRY_AFTER_JITTER * self._jitter())
        pause = self._longest * self._jitter()
        self._longest = min(2 * self._longest, LONGEST_PAUSE_SECONDS)
        return pause


def parse_retry_after(
    value: str | None, now: datetime.datetime
) -> float | None:
    """The seconds of a Retry-After header, None without one.

    It contains seconds or an HTTP date (RFC 9110, 10.2.3). Invalid values are
    ignored, as that section requires.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, OverflowError):
        return None
