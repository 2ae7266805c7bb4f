"""OCI images: registry, encryption, unpacking."""
