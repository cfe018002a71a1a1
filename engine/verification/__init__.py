"""Two pairs of networks on the same snippets: do numbers and events agree?

Against annotated actions, events are measured in `training.evaluation`.
"""
