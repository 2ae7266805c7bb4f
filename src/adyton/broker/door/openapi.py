"""The OpenAPI document of the administrative API, made from what serves it: permissions, and the structs of ``protocol``.

A route stands in ``permissions`` or it is not served; here stands what it takes and gives. ``document`` fails where one of
the two lacks what the other has, and a test calls it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from adyton import __version__
from adyton.broker.door.openapi_routes import ROUTES, Given
from adyton.broker.people.permissions import TABLE, Line
from adyton.protocol.kbs_errors import ErrorBody

_REF = "#/components/schemas/{name}"
_WHO = {
    "any": "Whoever has any role over the tenant.",
    "auditor": "Auditors and owners of the tenant.",
    "owner": "Owners of the tenant.",
    "whole": "Owners of all tenants of the organisation.",
    "keeper": "Owners of the whole broker, about this tenant.",
    "runner": "Operators, and owners of the whole broker, about this tenant.",
    "watcher": "Operators, and owners and auditors of the whole broker.",
    "operator": "Operators, and owners of the whole broker.",
    "broker": "Owners of the whole broker.",
}
_ERRORS = {
    "400": "what was sent cannot be read or used",
    "401": "no token, or not one that this broker takes",
    "403": "not for this role, or not your tenant's",
    "404": "there is no such thing",
    "405": "not with this method",
    "409": "it contradicts what stands",
    "413": "too large",
    "429": "too many; Retry-After says when to ask again",
    "503": "the broker cannot do it now",
}


@lru_cache(maxsize=1)
def document() -> bytes:
    """The document as JSON. ``ValueError`` names the routes that only one of the two tables has."""
    served = {f"{line.method} {'/'.join(line.path)}": line for line in TABLE if line.area == "api"}
    missing, foreign = served.keys() - ROUTES.keys(), ROUTES.keys() - served.keys()
    if missing or foreign:
        raise ValueError(
            f"routes without a description: {sorted(missing)}; described and not served: {sorted(foreign)}"
        )
    kinds = [kind for given in ROUTES.values() for kind in (given.body, given.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, ErrorBody], ref_template=_REF, schema_hook=_anything)
    of = iter(schemas)
    shapes = {
        key: tuple(next(of) if kind is not None else None for kind in (given.body, given.answer))
        for key, given in ROUTES.items()
    }
    paths: dict[str, dict[str, Any]] = {}
    for key, line in served.items():
        given, (body, answer) = ROUTES[key], shapes[key]
        paths.setdefault(_path(line, given), {})[line.method.lower()] = _operation(line, given, body, answer)
    return msgspec.json.encode({
        "openapi": "3.1.0",
        "info": {
            "title": "Adyton broker: administration",
            "version": __version__,
            "description": "What owners, operators and auditors ask a broker. Attesters speak CoCo's KBS protocol instead.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            {"url": "/api/v0", "description": "the tenant `default`, or the host name's"},
            {"url": "/t/{tenant}/api/v0", "description": "a tenant", "variables": {"tenant": {"default": "default"}}},
        ],
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {name: _error(text) for name, text in _ERRORS.items()},
        },
    })  # fmt: skip


def _anything(kind: type) -> dict[str, Any]:
    """The schema of a value that may be any JSON."""
    if kind is not object:
        raise NotImplementedError
    return {"description": "any JSON"}


def _path(line: Line, given: Given) -> str:
    names = iter(given.parameters)
    return "/" + "/".join(f"{{{next(names)}}}" if part == "*" else part for part in line.path)


def _operation(line: Line, given: Given, body: dict[str, Any] | None, answer: dict[str, Any] | None) -> dict[str, Any]:
    name = "_".join(part for part in line.path if part != "*").replace("-", "_")
    operation: dict[str, Any] = {
        "operationId": f"{line.method.lower()}_{name}" + ("_of" * (line.path[-1] == "*")),
        "summary": given.summary,
        "description": _WHO[line.who] + (f" Recorded as `{line.action}`." if line.action else ""),
        "tags": [line.path[0]],
        "parameters": [
            *({"name": one, "in": "path", "required": True, "schema": _text(one)} for one in given.parameters),
            *({"name": one, "in": "query", "schema": schema} for one, schema in given.query.items()),
        ],
        "responses": {name: {"$ref": f"#/components/responses/{name}"} for name in _ERRORS},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if given.content != "application/json":
        operation["responses"]["200"] = {
            "description": given.gives,
            "content": {given.content: {"schema": {"type": "string"}}},
        }
    elif answer is None:
        operation["responses"]["204"] = {"description": "done"}
    else:
        operation["responses"]["200"] = {
            "description": given.gives,
            "content": {"application/json": {"schema": answer}},
        }
    return operation


def _text(name: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^/?#]+$"} | (
        {"enum": ["attestation", "resource", "requirements"]} if name == "kind" else {}
    )


def _error(text: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="ErrorBody")}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
