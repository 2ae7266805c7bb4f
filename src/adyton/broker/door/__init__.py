"""Bytes in, answers out: connections, paths, bodies, statuses, TLS, the API's document."""
