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

"""gunicorn, from within: one worker process with threads, TLS, and us.

The master does nothing but start the worker again when it dies. Everything
is made in the worker, after the fork: no connection and no thread crosses
it. A worker takes the state directory's lock before anything else, so that
a new one, after a reload or after the master was killed, waits for the old
one to go.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import logging
import os
import socket
import sys
import threading
import time
from typing import Any
from typing import Final

from gunicorn import arbiter
from gunicorn import glogging
from gunicorn.app import base
from gunicorn.workers import gthread
from oslo_config import cfg

from acme_appliance import conf as options
from acme_appliance import locks
from acme_appliance import problems
from acme_appliance import tls

LOG = logging.getLogger(__name__)

#: A new worker waits so long for an old one to finish its requests.
HANDOVER_SECONDS: Final = 90
#: A worker that shows no sign of life for so long is killed; the main loop
#: shows one each second, but a machine may be very slow at its start.
_SILENCE_SECONDS: Final = 300
#: A client that was told goodbye has so long to hang up.
_LINGER_SECONDS: Final = 2
#: How late a deadline may be noticed.
_TICK_SECONDS: Final = 0.5
_KEEPALIVE_SECONDS: Final = 75
_CONNECTIONS: Final = 1000
_RETRY_SECONDS: Final = (1, 2, 5, 10, 30)


def worker_lock(conf: cfg.ConfigOpts) -> locks.Lock:
    """Held by the process that has the service."""
    return locks.Lock(options.state_path(conf) / "worker.lock")


class _Logger(glogging.Logger):  # type: ignore[misc] # no types
    """gunicorn's messages in our log, in our format."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True
        self.error_log.setLevel(logging.NOTSET)
        # Requests are logged by the application, with their ids.
        self.access_log.disabled = True


class Deadlines:
    """Ends connections whose peer is slow to send or to take what is due.

    A time-out of a socket begins anew with every byte: a byte now and then
    would hold a thread for ever. Shut down from here, the socket reads as
    one whose peer has gone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: By connection, not by its socket: TLS puts another in its place.
        self._due: dict[Any, float] = {}

    def set(self, connection: Any, seconds: float) -> None:
        """From now; in place of the one that it may have."""
        with self._lock:
            self._due[connection] = self._clock() + seconds

    def clear(self, connection: Any) -> None:
        """Once this has returned, the socket is not touched any more."""
        with self._lock:
            self._due.pop(connection, None)

    @contextlib.contextmanager
    def within(self, connection: Any, seconds: float) -> Iterator[None]:
        self.set(connection, seconds)
        try:
            yield
        finally:
            self.clear(connection)

    def enforce(self) -> None:
        # Under the lock, or a socket could be closed meanwhile, and its
        # number be another one's.
        with self._lock:
            now = self._clock()
            late = [c for c, due in self._due.items() if due <= now]
            for connection in late:
                if _shut_down(connection.sock):
                    LOG.info("Too slow, cut off: %s", connection.client)
                    del self._due[connection]

    def watch(self) -> None:
        """Enforce them for as long as the process lives."""

        def run() -> None:
            while True:
                time.sleep(_TICK_SECONDS)
                self.enforce()

        threading.Thread(target=run, name="deadlines", daemon=True).start()


def _shut_down(sock: socket.socket) -> bool:
    """False: it cannot be now; just being wrapped in TLS, for example."""
    try:
        # Not the TLS socket's own: the thread that uses it would find half
        # of its state gone.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return False
    return True


class _Input:
    """A request's body, each read of which has a deadline."""

    def __init__(
        self,
        body: Any,
        within: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._body = body
        self._within = within

    def read(self, size: int = -1) -> bytes:
        with self._within():
            data: bytes = self._body.read(size)
            return data


class Worker(gthread.ThreadWorker):  # type: ignore[misc] # no types
    """Gives clients a limited time, and answers what is no HTTP as the API.

    The time is for sending a request and for taking the reply, never for
    the work in between: long polls and slow changes have their own limits.
    """

    #: For the TLS handshake and a request's head together, and again for
    #: its body, 64 KiB at most: many times what a bad line needs, and all
    #: that a thread can be held for by somebody who has not logged in.
    receive_seconds: float = 10
    #: For taking the reply, of which the longest list is some megabytes.
    send_seconds: float = 30
    wsgi: Any

    #: SIGTERM has come; a plain flag, as signal handlers take no locks.
    stopping = False

    def init_process(self) -> None:
        self._deadlines = Deadlines()
        self._deadlines.watch()
        #: The connection that a thread is at.
        self._current = threading.local()
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        application = self.wsgi

        def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
            connection = self._current.connection
            self._deadlines.clear(connection)
            environ["wsgi.input"] = _Input(
                environ["wsgi.input"],
                lambda: self._deadlines.within(
                    connection, self.receive_seconds
                ),
            )
            try:
                return application(environ, start_response)
            finally:
                self._deadlines.set(connection, self.send_seconds)

        self.wsgi = wsgi

    def handle(self, conn: Any) -> Any:
        """One request, or as much of it as there is, in a thread."""
        self._current.connection = conn
        with self._deadlines.within(conn, self.receive_seconds):
            kept = super().handle(conn)
        if kept is False:
            self._close(conn)
        return kept

    def _close(self, conn: Any) -> None:
        """Close in this thread what gunicorn would in its main loop.

        A close with something unread would take the end of the reply away,
        so the client's is waited for; in the main loop everybody would.
        gunicorn also counts a connection twice that is closed already.
        """
        with (
            contextlib.suppress(OSError),
            self._deadlines.within(conn, _LINGER_SECONDS),
        ):
            conn.sock.setblocking(True)
            conn.sock.shutdown(socket.SHUT_WR)
            while conn.sock.recv(65_536):
                pass
        conn.sock.close()
        conn.close = _do_nothing

    def handle_exit(self, sig: Any, frame: Any) -> None:
        Worker.stopping = True
        super().handle_exit(sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> None:
        LOG.info(
            "Not a request, from %s: %s: %.200r",
            addr[0] if addr else "-",
            type(exc).__name__,
            str(exc),
        )
        body = _bad_request()
        try:
            client.setblocking(False)
            client.send(body)
        except OSError as error:
            LOG.debug("The reply could not be sent: %s", error)


def _do_nothing(graceful: bool = False) -> None:
    return


def _bad_request() -> bytes:
    # json comes with the API's modules in any case.
    from acme_appliance.api.calls import to_json

    problem = problems.Problem(
        "request.invalid", "This is not a valid HTTP request."
    )
    body = to_json(problem.to_dict())
    head = (
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Server(base.BaseApplication):  # type: ignore[misc] # no types
    """The appliance as gunicorn runs it.

    :param lock: held by the master; tells a second ``serve``.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        certificate: tls.Certificate | None,
        lock: locks.Lock,
    ) -> None:
        self._conf = conf
        self._certificate = certificate
        self._lock = lock
        self._worker_lock = worker_lock(conf)
        self._starter: _Starter | None = None
        super().__init__(prog=options.PROG)

    def load_config(self) -> None:
        for name, value in self._settings().items():
            self.cfg.set(name, value)

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "bind": options.bind_addresses(self._conf),
            "workers": 1,
            "worker_class": Worker,
            "threads": self._conf.threads,
            "worker_connections": _CONNECTIONS,
            "timeout": _SILENCE_SECONDS,
            "graceful_timeout": self._conf.graceful_shutdown_seconds,
            "keepalive": _KEEPALIVE_SECONDS,
            "umask": 0o022,
            "proc_name": options.PROG,
            "logger_class": _Logger,
            "post_fork": self._after_fork,
            "post_worker_init": self._start_service,
            "worker_exit": self._stop_service,
            # Nobody is in front who could say what a client's address is.
            "forwarded_allow_ips": "",
            "secure_scheme_headers": {},
        }
        if os.access("/dev/shm", os.W_OK):  # noqa: S108 - an unlinked file
            settings["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
        if "control_socket_disable" in self.cfg.settings:
            settings["control_socket_disable"] = True
        if self._certificate is not None:
            # One context for all connections: gunicorn would read the
            # files again for each.
            context = tls.server_context(self._certificate)
            settings["certfile"] = str(self._certificate.certificate_file)
            settings["keyfile"] = str(self._certificate.key_file)
            settings["ssl_context"] = lambda config, default: context
        return settings

    def _after_fork(self, server: Any, worker: Any) -> None:
        self._lock.leave()
        for listener in worker.sockets:
            # Accepted sockets inherit it.
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def load(self) -> Any:
        """In the worker: everything that has threads or connections."""
        from acme_appliance import composition
        from acme_appliance.api import app
        from acme_appliance.service import tokens

        try:
            self._worker_lock.take(HANDOVER_SECONDS)
            database = composition.build_database(self._conf)
            service = composition.build_service(self._conf, database)
        except locks.Held as error:
            LOG.error("The process before this one does not end: %s", error)
            sys.exit(arbiter.Arbiter.APP_LOAD_ERROR)
        except Exception:
            LOG.exception("The appliance cannot start")
            sys.exit(arbiter.Arbiter.APP_LOAD_ERROR)
        self._starter = _Starter(service)
        return app.create_app(
            service,
            tokens.TokenStore(database),
            composition.build_api_settings(self._conf),
            lambda: Worker.stopping,
        )

    def _start_service(self, worker: Any) -> None:
        if self._starter is not None:
            self._starter.start()

    def _stop_service(self, server: Any, worker: Any) -> None:
        if self._starter is not None:
            self._starter.stop()


class _Starter:
    """Recovers in the background, again and again until it succeeds.

    Reads are served meanwhile and changes get ``system.starting``; a pool
    that is mounted late needs no restart.
    """

    def __init__(self, service: Any) -> None:
        self._service = service
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="recovery", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._service.stop()

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            try:
                self._service.start()
            except problems.Problem as problem:
                LOG.error("Recovery failed, will try again: %s", problem)
            except Exception:
                LOG.exception("Recovery failed, will try again")
            else:
                LOG.info("Ready")
                return
            delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
            attempt += 1
            self._stopping.wait(delay)
