"""AWS Nitro Enclaves: attestation documents, and what an enclave image's PCRs must be."""
