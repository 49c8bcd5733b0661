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

"""The server process: front end, service and signals."""

import asyncio
from collections.abc import Awaitable
import logging
import os
import resource
import signal
import socket
import ssl
import threading
from typing import Final

from oslo_config import cfg
import uvloop

from acme_appliance import composition
from acme_appliance import problems
from acme_appliance import tls
from acme_appliance.api import app
from acme_appliance.service import Service
from acme_appliance.service import tokens
from acme_appliance.web import frontend

LOG = logging.getLogger(__name__)

_RETRY_SECONDS: Final = (1, 2, 5, 10, 30)
#: Added to graceful_shutdown_seconds, for the stop itself.
_STOP_SECONDS: Final = 10
#: Files and sockets that are not API connections: database, log, commands.
_OTHER_FILES: Final = 512


class ListenError(Exception):
    """Cannot listen on an address; the text says which and why."""


def listen(conf: cfg.ConfigOpts) -> list[socket.socket]:
    """Bind a socket for each listen address. Accepts no connections yet.

    :raises ListenError: in use, not this machine's, or not permitted.
    """
    bound: list[socket.socket] = []
    for address in conf.listen_addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            bound.append(
                socket.create_server(
                    (address, conf.port),
                    family=family,
                    dualstack_ipv6=address == "::",
                )
            )
        except OSError as error:
            for each in bound:
                each.close()
            raise ListenError(
                f"cannot listen on {address} port {conf.port}: {error}"
            ) from error
    return bound


class Server:
    """Runs the appliance.

    :param certificate: None: no TLS.
    :raises tls.TlsError: the certificate cannot be used.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        certificate: tls.Certificate | None,
        listeners: list[socket.socket],
    ) -> None:
        self._conf = conf
        self._listeners = listeners
        self._context = _context(certificate)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. SIGHUP reloads the certificate."""
        database = composition.build_database(self._conf)
        service = composition.build_service(self._conf, database)
        # A TLS connection takes 300 KiB in asyncio's own loop, 50 in uvloop.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(service, tokens.TokenStore(database)))

    async def _run(self, service: Service, store: tokens.TokenStore) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: _in_background(self._reload())
        )
        front = self._front(service, store)
        front.start(self._listeners)
        starter = _Starter(service)
        starter.start()
        notify("READY=1")
        await stop.wait()
        await self._stop(front, starter)

    def _front(
        self, service: Service, store: tokens.TokenStore
    ) -> frontend.Frontend:
        settings = composition.build_api_settings(self._conf)
        authenticator = app.build_authenticator(store, settings)
        return frontend.Frontend(
            app.create_app(
                service, store, settings, authenticator, self._stopping.is_set
            ),
            authenticator,
            _limits(self._conf, settings.max_body_bytes),
            lambda: self._context,
        )

    async def _stop(
        self, front: frontend.Frontend, starter: "_Starter"
    ) -> None:
        LOG.info("Stopping")
        notify("STOPPING=1")
        self._stopping.set()
        seconds = self._conf.graceful_shutdown_seconds
        _leave_after(seconds + _STOP_SECONDS)
        await front.stop(seconds)
        await asyncio.to_thread(starter.stop)
        LOG.info("Stopped")

    async def _reload(self) -> None:
        """Read the certificate files again, for new connections."""
        try:
            certificate = await asyncio.to_thread(
                composition.find_certificate, self._conf
            )
            self._context = _context(certificate)
        except (OSError, tls.TlsError) as error:
            LOG.error("Cannot reload the certificate, keep the old: %s", error)


def _context(certificate: tls.Certificate | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    LOG.info(
        "TLS certificate %s, SHA-256 %s",
        certificate.certificate_file,
        certificate.fingerprint,
    )
    return tls.server_context(certificate)


def _limits(conf: cfg.ConfigOpts, max_body_bytes: int) -> frontend.Limits:
    files = _allow_open_files(conf.max_connections + _OTHER_FILES)
    most = max(1, min(conf.max_connections, files - _OTHER_FILES))
    if most < conf.max_connections:
        LOG.warning(
            "[DEFAULT] max_connections is %d, but %d open files are allowed"
            " (LimitNOFILE=, ulimit -n): at most %d connections",
            conf.max_connections,
            files,
            most,
        )
    return frontend.Limits(
        threads=conf.threads,
        max_connections=most,
        max_strangers=conf.max_connections_without_token,
        max_body_bytes=max_body_bytes,
    )


def _allow_open_files(wanted: int) -> int:
    """Raise the soft limit as far as needed and allowed; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def _in_background(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    # The loop itself keeps only a weak reference.
    task.add_done_callback(_BACKGROUND.discard)
    _BACKGROUND.add(task)


_BACKGROUND: Final[set[asyncio.Future[None]]] = set()


def _leave_after(seconds: float) -> None:
    """Exit the process after this time, even if a thread hangs.

    The next start resumes its work.
    """

    def leave() -> None:
        LOG.error("Work takes longer than %s s; exit without it", seconds)
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


def notify(state: str) -> None:
    """Notify systemd, if it started this process (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        LOG.warning("Cannot notify systemd of %s: %s", state, error)


class _Starter:
    """Retries recovery in the background until it succeeds.

    Until then reads work and changes get ``system.starting``. A pool that is
    mounted late needs no restart.
    """

    def __init__(self, service: Service) -> None:
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
                LOG.error("Recovery failed, will retry: %s", problem)
            except Exception:
                LOG.exception("Recovery failed, will retry")
            else:
                LOG.info("Ready")
                return
            delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
            attempt += 1
            self._stopping.wait(delay)
