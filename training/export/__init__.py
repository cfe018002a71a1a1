"""A trained run → a bundle, and whether the bundle is what was trained."""
