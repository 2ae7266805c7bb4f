"""Strict, canonical encodings: bytes in, values out, and back to the same bytes. Pure."""
