"""Places outside the store that hold secrets or keys: HSM, Vault, cloud, KMIP. Each imported only when configured."""
