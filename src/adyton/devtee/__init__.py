"""Issuing, and forging, evidence under a development root."""
