"""One account and region of AWS: its clients, answers with an end, and what its errors mean.

An answer has an end, in bytes and time (``http_bounds``); so has a listing of many pages: the call's deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from adyton.errors import AdytonError, ConfigError, Unavailable
from adyton.stores.backends import http_bounds
from adyton.stores.backends.options import AwsOptions as Options
from adyton.stores.backends.signatures import refused

try:
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import (
        ClientError,
        ConnectTimeoutError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        ProfileNotFound,
        ReadTimeoutError,
        SSLError,
    )
except ImportError as _error:  # pragma: no cover -- the environment of the tests has it
    raise ConfigError(
        "AWS needs a library that is not installed",
        code="backend_extra_missing",
        field="aws",
        hint="pip install 'adyton[aws]'",
    ) from _error

_T = TypeVar("_T")
MAX_ANSWER = 2 * 1024 * 1024
"""Bytes; a page of a listing, with all tags that there may be, is the longest."""
MAX_NAMES = 100_000
_ABSENT = {"NotFoundException", "ResourceNotFoundException"}
_FORBIDDEN = {
    *("AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "InvalidClientTokenId"),
    *(
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "ExpiredTokenException",
        "MissingAuthenticationTokenException",
    ),
}
_REFUSED = {"InvalidCiphertextException", "IncorrectKeyException"}
_BUSY = {"ThrottlingException", "Throttling", "LimitExceededException", "RequestTimeout", "KeyUnavailableException"}
_GONE = {"KMSInvalidStateException", "DisabledException"}


class Absent(Exception):
    """AWS has no such key or secret."""


class AwsLink:
    """Asks AWS, with a client for each service. ``Absent`` is what is not there; all else is an error of ours."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def ask(self, service: str, call: Callable[[Any], _T]) -> _T:
        """What ``call`` makes of the service's client."""
        try:
            return call(self._client(service))
        except ClientError as error:
            raise self._told(error) from error
        except AdytonError:
            raise
        except SSLError as error:
            raise ConfigError(
                "the server's certificate is not AWS's",
                code="backend_certificate_refused",
                field=self._options.endpoint_url or self._options.region,
                hint="name the authority that signs it: ca_file",
            ) from error
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise ConfigError(
                "there are no credentials for AWS", code="backend_login_refused", field="credentials_file"
            ) from error
        except ParamValidationError as error:
            raise Unavailable(
                "AWS does not take such a request", code="backend_refused", field=self._options.region
            ) from error
        except Exception as error:  # AWS's library meets a broken answer with whatever comes
            if http_bounds.was_too_much(error):
                raise too_much(self._options) from error
            slow = isinstance(error, ConnectTimeoutError | ReadTimeoutError | TimeoutError)
            raise Unavailable(
                "AWS does not answer in time" if slow else "AWS cannot be reached or its answer cannot be read",
                code="backend_slow" if slow else "backend_unreachable",
                field=self._options.endpoint_url or self._options.region,
                got=type(error).__name__,
                hint="try again",
            ) from error

    def _told(self, error: ClientError) -> AdytonError | Absent:
        told = error.response.get("Error")
        code = str(told.get("Code") if isinstance(told, dict) else told)[:80]
        if code in _ABSENT:
            return Absent()
        if code in _REFUSED:
            return refused()
        if code in _FORBIDDEN:
            return ConfigError(
                "AWS forbids it",
                code="backend_forbidden",
                field=self._options.region,
                got=code,
                hint="the credentials are not valid, or their policy lacks this",
            )
        if code in _GONE:
            return ConfigError("the key is disabled or pending deletion", code="held_key_absent", field="key", got=code)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int) and 400 <= status < 500 and status != 429 and code not in _BUSY:
            return Unavailable("AWS refuses the request", code="backend_refused", field=self._options.region, got=code)
        return Unavailable("AWS failed", code="backend_failed", field=self._options.region, got=code, hint="try again")

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                options = self._options
                core = botocore.session.Session(profile=options.profile or None)
                if options.credentials_file:
                    core.set_config_variable("credentials_file", options.credentials_file)
                config = Config(
                    connect_timeout=options.seconds,
                    read_timeout=options.seconds,
                    retries={"total_max_attempts": 2, "mode": "standard"},
                    max_pool_connections=32,
                )
                made = boto3.Session(botocore_session=core).client(
                    service,
                    region_name=options.region,
                    endpoint_url=options.endpoint_url or None,
                    verify=options.ca_file or None,
                    config=config,
                )
                # The library has no setting for it; this one dictionary is what all its connections are made by.
                classes = made._endpoint.http_session._pool_classes_by_scheme  # noqa: SLF001
                classes.update(http_bounds.pools(classes, MAX_ANSWER, options.seconds))
                self._clients[service] = made
            return self._clients[service]


def too_much(options: Options) -> Unavailable:
    """The error of an answer without end."""
    return Unavailable(
        "AWS's answer is too long",
        code="backend_answer_too_large",
        field=options.endpoint_url or options.region,
        expected=f"at most {MAX_ANSWER} bytes, {MAX_NAMES} names",
    )
