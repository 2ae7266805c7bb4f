"""Messages of gRPC interfaces. Each ``<name>.proto`` is written by hand; ``<name>_pb2.py`` is made from it.

``scripts/protos.py`` makes them, and a test holds them to each other. Only messages are made: whoever calls or serves
an interface names its methods to ``grpc`` itself, so that nothing here needs ``grpc``.
"""
