"""Processes: starting, serving, watching, draining, relieving."""
