"""Measurements: ours, and a bare floor, in turn, in one run."""
