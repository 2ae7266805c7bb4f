"""The record of decisions as owners and auditors read it."""
