"""How the root key is come by, kept, shared and looked after."""
