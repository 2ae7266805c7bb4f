"""The story that `adyton demo` plays."""
