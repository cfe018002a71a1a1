"""A trained run → a bundle, and whether the bundle is what was trained.

Lower precisions of its backbone are made in `training.precision`.
"""
