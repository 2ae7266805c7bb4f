"""Azure's confidential VMs: a vTPM in the paravisor, whose key the hardware's report vouches for (evidence 5)."""
