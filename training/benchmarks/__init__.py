"""The tables of the documentation: what each part is worth, measured anew.

The measures themselves are in `training.evaluation`; speed of a machine is `s2netd bench`.
"""
