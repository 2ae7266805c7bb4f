"""Intel SGX: quotes of enclaves, what they say, and what MRENCLAVE must be."""
