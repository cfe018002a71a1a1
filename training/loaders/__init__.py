"""Features and annotations in every form people have them → `training.records.FeatureSet`.

No loader unpickles anything from outside; every input that cannot be used is one line of
`engine.errors.DataError` that names the file, the value and the fix.
"""
