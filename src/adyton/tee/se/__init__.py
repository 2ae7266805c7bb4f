"""IBM Secure Execution: host key documents, attestation requests, responses. Pure."""
