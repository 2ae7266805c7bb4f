"""Talking to a broker: handshake, resources, administration."""
