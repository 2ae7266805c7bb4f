"""How a workload gets into a TEE on this machine."""
