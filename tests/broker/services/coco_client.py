"""A client of Confidential Containers' kind, made from interface texts of its own: run as a process, apart from Adyton's code.

Reads calls as JSON lines ``{"service", "method", "message", "metadata", "timeout"}`` on standard input; writes one line each:
``{"message"}`` or ``{"status", "details", "code"}``. Arguments: a directory with ``*.proto``, the address, and optionally CA,
certificate and key for TLS.
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
from grpc_tools import protoc


def main(protos: Path, address: str, *secrets: str) -> None:
    made = tempfile.mkdtemp()
    names = [str(path) for path in sorted(protos.glob("*.proto"))]
    assert protoc.main(["protoc", f"-I{protos}", f"--python_out={made}", f"--grpc_python_out={made}", *names]) == 0
    sys.path.insert(0, made)
    if secrets:
        ca, *own = (Path(name).read_bytes() for name in secrets)
        credentials = grpc.ssl_channel_credentials(ca, own[1] if own else None, own[0] if own else None)
        channel: Any = grpc.secure_channel(address, credentials)
    else:
        channel = grpc.insecure_channel(address)
    for line in sys.stdin:
        call = json.loads(line)
        print(json.dumps(one(channel, call)), flush=True)


def one(channel: Any, call: dict[str, Any]) -> dict[str, Any]:
    try:
        if "raw" in call:
            how = channel.unary_unary(call["method"])
            answer = how(base64.b64decode(call["raw"]), timeout=call.get("timeout", 10))
            return {"raw": base64.b64encode(answer).decode()}
        module = importlib.import_module(call["module"] + "_pb2")
        stubs: Any = importlib.import_module(call["module"] + "_pb2_grpc")
        from google.protobuf import json_format

        service = module.DESCRIPTOR.services_by_name[call["service"]]
        method = service.methods_by_name[call["method"]]
        message = json_format.ParseDict(call["message"], getattr(module, method.input_type.name)())
        stub = getattr(stubs, call["service"] + "Stub")(channel)
        answer = getattr(stub, call["method"])(
            message, timeout=call.get("timeout", 10), metadata=[tuple(pair) for pair in call.get("metadata", [])]
        )
        return {"message": json_format.MessageToDict(answer, preserving_proto_field_name=True)}
    except grpc.RpcError as error:
        failed: Any = error
        trailing = {item.key: item.value for item in failed.trailing_metadata() or ()}
        return {"status": failed.code().name, "details": failed.details(), "code": trailing.get("adyton-code", "")}


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
