"""The key broker: relying party and verifier service."""
