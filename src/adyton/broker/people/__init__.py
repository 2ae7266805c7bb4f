"""Who administers, what they may call, and what several of them must agree to."""
