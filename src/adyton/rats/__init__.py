"""The words of RFC 9334 as types, how a challenge is bound into evidence, and the small ports between rooms. Pure."""
