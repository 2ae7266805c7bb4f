"""Hygon CSV: reports, Hygon's own kind of certificates, verification with SM2 and SM3. Pure."""
