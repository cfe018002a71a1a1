"""Events held against other events, and against what is known to have happened.

Networks are not run here: whoever compares brings the events.
"""
