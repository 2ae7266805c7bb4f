"""Verify-or-raise wrappers over pyca/cryptography, and the JOSE that guests need. Pure."""
