"""Features and annotations in every form people have them → `training.records.FeatureSet`.

Nothing here trusts a pickle, and nothing makes features. Every input that cannot be used is one
line of `engine.errors.DataError` that names the file, the value and the fix.
"""
