"""Policies: versions, evaluation, trials, and what follows from their answers."""
