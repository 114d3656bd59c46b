"""A seeded random workload: a seed decides what it does, and what it finds can be found again.

See README.md.
"""
