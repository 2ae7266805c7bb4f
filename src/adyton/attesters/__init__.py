"""Collecting evidence: this machine's devices, or the development TEE."""
