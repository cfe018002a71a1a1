"""The model bundle: the contract between training and production, read, verified and written.

Published weights become bundles in `engine.published`, trained runs in `training.export`.
"""
