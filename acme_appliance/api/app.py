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

"""The WSGI application: passes valid, authorised requests to handlers."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import logging
import re
import threading
from typing import Any
from typing import Final
from typing import TYPE_CHECKING

import falcon
from sqlalchemy import exc

from acme_appliance import problems
from acme_appliance import types
from acme_appliance.api import auth
from acme_appliance.api import bodies
from acme_appliance.api import contract
from acme_appliance.api import middleware
from acme_appliance.api import routes
from acme_appliance.api import validation
from acme_appliance.api.requests import ApiRequest
from acme_appliance.api.requests import ApiResponse
from acme_appliance.api.requests import ApiSettings
from acme_appliance.api.requests import to_json
from acme_appliance.changes import failures

if TYPE_CHECKING:
    from acme_appliance.service import Service
    from acme_appliance.service import tokens

LOG = logging.getLogger(__name__)

_PREFER_WAIT: Final = re.compile(
    r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?:$|[,;])"
)
_PREFER_ASYNC: Final = re.compile(r"(?:^|[,;])\s*respond-async\s*(?:$|[,;])")
_HTTP_ERRORS: Final = {
    404: "route.not_found",
    405: "route.method_not_allowed",
    413: "request.too_large",
    415: "request.media_type",
}


class Api:
    """State that all requests share."""

    def __init__(
        self,
        service: "Service",
        store: "tokens.TokenStore",
        settings: ApiSettings,
        authenticator: auth.Authenticator,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.is_stopping = is_stopping
        self.service = service
        self.tokens = store
        self.settings = settings
        self.authenticator = authenticator
        self._changes = threading.BoundedSemaphore(settings.changes)
        self._long_polls = threading.BoundedSemaphore(settings.long_polls)

    def handle(
        self,
        operation: contract.Operation,
        handler: routes.Handler,
        req: falcon.Request,
        path: dict[str, str],
    ) -> ApiResponse:
        credential = self._authorise(operation, req)
        request = self._parse(operation, req, path, credential)
        with self._limited(operation, request):
            return handler(request)

    def _authorise(
        self, operation: contract.Operation, req: falcon.Request
    ) -> "tokens.Credential | None":
        if not operation.scopes and not operation.basic:
            return None
        check = self.authenticator.bearer
        if operation.basic:
            check = self.authenticator.basic
        # Every 401, also from the handler, names the scheme to use.
        req.context.challenge = "Basic" if operation.basic else "Bearer"
        credential = check(req.auth, req.remote_addr)
        req.context.actor = credential.name
        if operation.scopes and credential.scope not in operation.scopes:
            raise problems.Problem(
                "auth.forbidden",
                f"{operation.id} needs one of the scopes"
                f" {', '.join(sorted(operation.scopes))}; the token of"
                f" {credential.name} has {credential.scope}.",
            )
        return credential

    def _parse(
        self,
        operation: contract.Operation,
        req: falcon.Request,
        path: dict[str, str],
        credential: "tokens.Credential | None",
    ) -> ApiRequest:
        validation.check_path(operation, path)
        names = {p.name for p in operation.parameters_in("header")}
        given = {name: req.get_header(name) for name in names}
        headers = {n: value for n, value in given.items() if value is not None}
        validation.check_headers(operation, headers)
        return ApiRequest(
            service=self.service,
            tokens=self.tokens,
            settings=self.settings,
            caller=types.Caller(
                name=credential.name if credential else "-",
                scope=credential.scope if credential else "-",
                namespace=credential.namespace if credential else None,
                request_id=req.context.request_id,
            ),
            credential=credential,
            url=req.path,
            path=path,
            query=validation.parse_query(operation, req.query_string),
            body=bodies.read(operation, req, self.settings.max_body_bytes),
            if_match=_generation(headers.get("If-Match")),
            wait_seconds=self._wait_seconds(headers.get("Prefer")),
            is_stopping=self.is_stopping,
        )

    def _wait_seconds(self, prefer: str | None) -> int:
        """Unknown preferences are ignored (RFC 7240)."""
        if prefer and (match := _PREFER_WAIT.search(prefer)):
            return min(int(match[1]), self.settings.max_wait_seconds)
        if prefer and _PREFER_ASYNC.search(prefer):
            return 0
        return self.settings.default_wait_seconds

    @contextlib.contextmanager
    def _limited(
        self, operation: contract.Operation, request: ApiRequest
    ) -> Iterator[None]:
        """Limit concurrent changes and long polls, so that threads stay free
        for reads."""
        if any(p.name == "Prefer" for p in operation.parameters):
            if not self._changes.acquire(blocking=False):
                raise problems.Problem(
                    "rate.limited",
                    f"{self.settings.changes} changes are in progress, which"
                    " is the maximum.",
                )
            try:
                yield
            finally:
                self._changes.release()
        elif request.query.get("wait") and self._long_polls.acquire(False):
            try:
                yield
            finally:
                self._long_polls.release()
        else:
            if "wait" in request.query:
                request.query["wait"] = 0
            yield


def build_authenticator(
    store: "tokens.TokenStore", settings: ApiSettings
) -> auth.Authenticator:
    failures = auth.FailureLimit(
        settings.max_failed_logins, settings.failed_login_window_seconds
    )
    return auth.Authenticator(store, failures)


def create_app(
    service: "Service",
    store: "tokens.TokenStore",
    settings: ApiSettings | None = None,
    authenticator: auth.Authenticator | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> "falcon.App[falcon.Request, falcon.Response]":
    """The whole API of one service, callable without a server.

    :param authenticator: default: a new one.
    :param is_stopping: polled by long polls, which end early if it returns
        True.
    """
    app = falcon.App(
        middleware=[middleware.RequestLog(service.context.metrics)]
    )
    app.add_error_handler(Exception, _on_unexpected)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(
        (exc.OperationalError, exc.TimeoutError), _on_database_error
    )
    app.add_error_handler(problems.Problem, _on_problem)
    settings = settings or ApiSettings()
    authenticator = authenticator or build_authenticator(store, settings)
    api = Api(service, store, settings, authenticator, is_stopping)
    for path, resource in _resources(api).items():
        app.add_route(path, resource)
    return app


class _Resource:
    """A Falcon resource: ``on_METHOD`` for each method."""


def _resources(api: Api) -> dict[str, _Resource]:
    operations = contract.load().operations
    resources: dict[str, _Resource] = {}
    methods: dict[str, list[str]] = {}
    for route in routes.ROUTES:
        resource = resources.setdefault(route.path, _Resource())
        operation = operations[route.handler.__name__]
        responder = _responder(api, operation, route.handler)
        setattr(resource, f"on_{route.method.lower()}", responder)
        allowed = methods.setdefault(route.path, [])
        allowed.append(route.method)
        if route.method == "GET":
            # Falcon and the server omit the body.
            setattr(resource, "on_head", responder)  # noqa: B010
            allowed.append("HEAD")
    for path, resource in resources.items():
        # Otherwise Falcon answers OPTIONS, without authentication.
        refuse = _refuse_method(methods[path])
        for method in set(falcon.HTTP_METHODS) - set(methods[path]):
            setattr(resource, f"on_{method.lower()}", refuse)
    return resources


def _responder(
    api: Api, operation: contract.Operation, handler: routes.Handler
) -> Callable[..., None]:
    def respond(
        req: falcon.Request, resp: falcon.Response, **path: str
    ) -> None:
        req.context.operation = operation.id
        reply = api.handle(operation, handler, req, path)
        etag = reply.headers.get("ETag")
        if etag and req.method in ("GET", "HEAD") and _matches(req, etag):
            resp.status = 304
            resp.set_header("ETag", etag)
            return
        resp.status = reply.status
        resp.set_headers(reply.headers)
        if reply.status != 204:
            resp.content_type = reply.media_type
            resp.data = reply.data()

    return respond


def _generation(etag: str | None) -> int | None:
    return None if etag is None else int(etag.strip('"'))


def _matches(req: falcon.Request, etag: str) -> bool:
    given = req.get_header("If-None-Match") or ""
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return bool(tags & {etag, "*"})


def _refuse_method(allowed: list[str]) -> Callable[..., None]:
    def refuse(req: falcon.Request, resp: falcon.Response, **_: str) -> None:
        raise falcon.HTTPMethodNotAllowed(allowed)

    return refuse


def _on_problem(
    req: falcon.Request,
    resp: falcon.Response,
    problem: problems.Problem,
    params: dict[str, Any],
) -> None:
    resp.status = problem.http_status
    resp.content_type = "application/problem+json"
    resp.data = to_json(
        problem.to_dict(
            request_id=req.context.request_id, instance=req.path[:512]
        )
    )
    if problem.retry_after_seconds is not None:
        resp.set_header("Retry-After", str(problem.retry_after_seconds))
    if problem.http_status == 401:
        resp.set_header(
            "WWW-Authenticate",
            f'{req.context.challenge} realm="acme_appliance"',
        )


def _on_database_error(
    req: falcon.Request,
    resp: falcon.Response,
    error: Exception,
    params: dict[str, Any],
) -> None:
    """For reads and log-ins; the service handles those in changes."""
    _on_problem(req, resp, failures.to_problem(error), params)


def _on_http_error(
    req: falcon.Request,
    resp: falcon.Response,
    error: falcon.HTTPError,
    params: dict[str, Any],
) -> None:
    """Falcon's own errors: no route, no such method, a bad header."""
    if error.status_code >= 500:
        _on_unexpected(req, resp, error, params)
        return
    code = _HTTP_ERRORS.get(error.status_code, "request.invalid")
    detail = f"{req.method[:16]} {req.path[:512]}: "
    detail += error.description or problems.CODES[code].title + "."
    _on_problem(req, resp, problems.Problem(code, detail), params)
    allow = dict(error.headers or {}).get("Allow")
    if allow:
        resp.set_header("Allow", allow)


def _on_unexpected(
    req: falcon.Request,
    resp: falcon.Response,
    error: Exception,
    params: dict[str, Any],
) -> None:
    LOG.error(
        "[%s] %s %s failed",
        req.context.request_id,
        req.method[:16],
        repr(req.path[:512]),
        exc_info=error,
    )
    problem = problems.Problem(
        "internal",
        "Something unexpected happened; see the appliance's log for"
        f" {req.context.request_id}. It is unknown whether the change was"
        " made: read the resource by its id.",
    )
    _on_problem(req, resp, problem, params)
