"""One room per TEE; the same files in each. Adding a TEE is one room and one line here."""
