"""Published models: fetched by digest, converted, kept.

Bundles of one's own are made in `training.export`; all are read in `engine.bundle`.
"""
