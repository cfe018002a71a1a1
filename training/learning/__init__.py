"""Tagged features → a trained run, kept as a folder that can be gone on with.

The networks and their losses are in `training.networks`, the data is read in `training.loaders`.
"""
