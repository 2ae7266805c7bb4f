"""One Vault or OpenBao server: the connection, the token and its life, and what its answers mean.

The token comes from a file (read again when Vault refuses it: an agent may have replaced it) or from an AppRole login.
It is renewed once half of its life is over; one that cannot be renewed any more is fetched anew. Redirects, proxies and
``.netrc`` are not followed: they would carry the token elsewhere.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from adyton.errors import AdytonError, ConfigError, Unavailable
from adyton.protocol.loopback import is_loopback
from adyton.stores.backends import http_bounds
from adyton.stores.backends.options import VaultOptions as Options
from adyton.stores.backends.private import read_secret

try:
    import hvac
    import requests
    from hvac import exceptions as told
    from requests import exceptions as failed
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import HTTPError, ReadTimeoutError
except ImportError as _error:  # pragma: no cover -- the environment of the tests has it
    raise ConfigError(
        "Vault needs a library that is not installed",
        code="backend_extra_missing",
        field="vault",
        hint="pip install 'adyton[vault]'",
    ) from _error


MAX_ANSWER = 4 * 1024 * 1024


class _Bounded(HTTPAdapter):
    """Reads a whole answer of at most ``MAX_ANSWER`` bytes within ``seconds``, as it was sent: nothing is unpacked."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.poolmanager.pool_classes_by_scheme = http_bounds.pools(http_bounds.POOLS, MAX_ANSWER, seconds)

    def send(self, request: Any, stream: bool = False, *rest: Any, **named: Any) -> Any:
        request.headers["Accept-Encoding"] = "identity"
        answer = super().send(request, True, *rest, **named)
        try:
            pieces = answer.raw.stream(64 * 1024, decode_content=False)  # not ``read``: it trusts the length it is told
            answer._content = b"".join(pieces)  # noqa: SLF001 -- where ``requests`` looks for what was read
        except ReadTimeoutError as error:
            raise failed.ReadTimeout(error) from error
        except HTTPError as error:
            raise failed.ChunkedEncodingError(error) from error
        finally:
            answer.raw.release_conn()
        return answer


class Refused(Exception):
    """400 of Vault's: what was asked cannot be done with that key or value."""

    def __init__(self, reasons: str) -> None:
        super().__init__(reasons)
        self.reasons = reasons


class VaultLink:
    """Asks Vault. ``None`` is 404; ``Refused`` is 400; all else is an error of ours."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._check(options)
        session = requests.Session()
        session.trust_env = False
        session.verify = options.ca_file or True
        for scheme in ("https://", "http://"):
            session.mount(scheme, _Bounded(options.seconds))
        self._client = hvac.Client(
            url=options.url.rstrip("/"),
            token=None,
            timeout=options.seconds,
            namespace=options.namespace or None,
            allow_redirects=False,
            session=session,
        )
        self._client.token = ""  # hvac looks for one in the environment and the home directory
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = float("inf")

    @staticmethod
    def _check(options: Options) -> None:
        scheme, _, rest = options.url.partition("://")
        host = rest.partition("/")[0].rpartition("@")[2]
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if scheme not in {"https", "http"} or not name or "@" in rest:
            raise ConfigError(
                "not Vault's address", code="backend_option_invalid", field="url", expected="https://HOST"
            )
        if scheme == "http" and not options.insecure_http and not is_loopback(name):
            raise ConfigError(
                "Vault's token and values would be sent in the clear",
                code="backend_plain_http",
                field="url",
                got=options.url[:200],
                hint="use https://, or say insecure_http = true",
            )
        by_role = bool(options.role_id_file) and bool(options.secret_id_file)
        if by_role is bool(options.token_file) or bool(options.role_id_file) is not bool(options.secret_id_file):
            raise ConfigError(
                "say how to log in to Vault",
                code="backend_option_invalid",
                field="token_file",
                expected="token_file, or role_id_file and secret_id_file",
            )

    def close(self) -> None:
        """Close its connections."""
        self._client.adapter.close()

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        """The answer's JSON object, empty for 204."""
        token = self._current()
        try:
            return self._send(method, path, body, token)
        except told.Forbidden as error:
            again = self._after_refusal(token)
            if again == token:
                raise self._forbidden(path) from error
        try:
            return self._send(method, path, body, again)
        except told.Forbidden as error:
            raise self._forbidden(path) from error

    def _send(self, method: str, path: str, body: object, token: str) -> dict[str, Any] | None:
        try:
            answer = self._sent(method, path, body, token)
        except told.Forbidden:
            raise
        except told.InvalidPath:  # so is a deleted version of KV 2, with its metadata: nothing there all the same
            return None
        except told.InvalidRequest as error:
            raise Refused(str(error.errors)[:200]) from error
        except told.VaultError as error:
            raise self._down(error) from error
        except failed.SSLError as error:
            raise ConfigError(
                "the server's certificate is not Vault's",
                code="backend_certificate_refused",
                field=self.options.url,
                hint="name the authority that signs it: ca_file",
            ) from error
        except (failed.RequestException, OSError) as error:
            raise self._unreachable(error) from error
        except Exception as error:  # JSON without end, for one
            raise self._malformed(type(error).__name__) from error
        if isinstance(answer, dict):
            return answer
        status = getattr(answer, "status_code", None)
        if status == 204:
            return {}
        raise self._malformed(status)

    def _malformed(self, got: object) -> Unavailable:
        return Unavailable(
            "Vault's answer cannot be read", code="backend_answer_malformed", field=self.options.url, got=got
        )

    def _sent(self, method: str, path: str, body: object, token: str) -> Any:
        headers = {"X-Vault-Token": token} if token else {}
        try:
            return self._client.adapter.request(method, f"/v1/{path}", json=body, headers=headers)
        except (failed.SSLError, failed.Timeout):
            raise
        except failed.ConnectionError as error:
            if http_bounds.was_too_much(error):
                raise
            # One that was kept open and has been closed by the server: on a new one, then.
            return self._client.adapter.request(method, f"/v1/{path}", json=body, headers=headers)

    def _unreachable(self, error: Exception) -> AdytonError:
        if isinstance(error, OSError) and not isinstance(error, failed.RequestException):
            return ConfigError(
                "the file of certificates cannot be read", code="backend_file_unreadable", field="ca_file"
            )
        if http_bounds.was_too_much(error):
            return Unavailable(
                "Vault's answer is too long",
                code="backend_answer_too_large",
                field=self.options.url,
                expected=f"at most {MAX_ANSWER} bytes",
            )
        slow = isinstance(error, failed.Timeout)
        cut = isinstance(error, failed.ChunkedEncodingError | failed.ContentDecodingError)
        return Unavailable(
            "Vault does not answer in time"
            if slow
            else "Vault's answer ended early"
            if cut
            else "Vault cannot be reached",
            code="backend_slow" if slow else "backend_answer_malformed" if cut else "backend_unreachable",
            field=self.options.url,
            hint="try again",
        )

    def _down(self, error: Exception) -> AdytonError:
        sealed = isinstance(error, told.VaultDown)
        return Unavailable(
            "Vault is sealed or in maintenance" if sealed else "Vault failed",
            code="vault_sealed" if sealed else "backend_failed",
            field=self.options.url,
            got=type(error).__name__,
            hint="unseal it" if sealed else "try again",
        )

    def _forbidden(self, path: str) -> AdytonError:
        return ConfigError(
            "Vault forbids it",
            code="backend_forbidden",
            field=self.options.url,
            got=path[:200],
            hint="the token is not valid, or its policy lacks this path",
        )

    # the token

    def _current(self) -> str:
        with self._lock:
            if not self._token:
                self._log_in()
            elif time.monotonic() >= self._renew_at:
                self._renew()
            return self._token

    def _after_refusal(self, token: str) -> str:
        with self._lock:
            if self._token == token:  # else another thread has fetched a newer one meanwhile
                self._log_in()
            return self._token

    def _log_in(self) -> None:
        options = self.options
        if options.token_file:
            self._token = read_secret(options.token_file, "token_file")
            self._renew_at = time.monotonic()  # how long it lives is known once it was asked
            self._look_up()
            return
        given = {
            "role_id": read_secret(options.role_id_file, "role_id_file"),
            "secret_id": read_secret(options.secret_id_file, "secret_id_file"),
        }
        try:
            answer = self._send("POST", f"auth/{options.approle_mount}/login", given, "")
        except (Refused, told.Forbidden) as error:
            raise ConfigError(
                "Vault refuses the role", code="backend_login_refused", field="role_id_file", hint="was it withdrawn?"
            ) from error
        auth = (answer or {}).get("auth")
        token = auth.get("client_token") if isinstance(auth, dict) else None
        if not isinstance(auth, dict) or not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise Unavailable("Vault's answer cannot be read", code="backend_answer_malformed", field=options.url)
        self._token = token
        self._lives(auth.get("lease_duration"))

    def _look_up(self) -> None:
        try:
            answer = self._send("GET", "auth/token/lookup-self", None, self._token) or {}
        except told.Forbidden:
            self._lives(0)  # a policy may not allow it, and if the token is bad the request itself will tell
            return
        data = answer.get("data")
        facts: dict[str, Any] = data if isinstance(data, dict) else {}
        self._lives(facts.get("ttl") if facts.get("renewable") else 0)

    def _renew(self) -> None:
        try:
            answer = self._send("POST", "auth/token/renew-self", {}, self._token) or {}
            auth = answer.get("auth")
            self._lives(auth.get("lease_duration") if isinstance(auth, dict) else 0)
        except (Refused, told.Forbidden, AdytonError):
            self._log_in()

    def _lives(self, seconds: object) -> None:
        """``seconds`` to live; 0 or nothing: as long as Vault takes it."""
        lasting = not isinstance(seconds, int) or seconds <= 0
        self._renew_at = float("inf") if lasting else time.monotonic() + float(str(seconds)) / 2
