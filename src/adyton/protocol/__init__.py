"""What goes over the wire: RCAR, resource URIs, JWE, EAR, init data, the report channel. Pure."""
