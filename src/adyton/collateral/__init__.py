"""Where endorsements come from."""
