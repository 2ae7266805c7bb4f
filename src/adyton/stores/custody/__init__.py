"""Who keeps the root key: a file, a passphrase, a TPM, an HSM or KMS, owners with shares. Each imported when used."""
