"""Arm CCA: a realm's token and its platform's, bound to each other."""
