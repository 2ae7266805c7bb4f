"""NVIDIA GPUs and switches: SPDM measurement reports, device certificates, reference integrity manifests."""
