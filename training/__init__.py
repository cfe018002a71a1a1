"""`s2net`: from tagged recordings to bundles, and how good they are.

Features are made as the daemon makes them, networks trained on them, exported, converted, and
judged through the daemon's own session. How a bundle runs live is in `engine` and `daemon`.
"""
