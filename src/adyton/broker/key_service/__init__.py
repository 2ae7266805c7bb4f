"""Keys made, kept and used inside the broker."""
