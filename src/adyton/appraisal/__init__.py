"""Claims x reference values x policy -> attestation result. Pure."""
