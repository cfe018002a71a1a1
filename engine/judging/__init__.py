"""Events held against other events, and against what is known to have happened."""
