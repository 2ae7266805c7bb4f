"""The development TEE as a service: starts instances, measures them, answers for them."""
