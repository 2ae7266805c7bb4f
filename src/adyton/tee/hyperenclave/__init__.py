"""HyperEnclave: enclaves of a small hypervisor, whose hash a TPM quotes and whose key signs their reports."""
