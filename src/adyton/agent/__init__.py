"""Inside the TEE beside the workload: evidence, secrets, images."""
