"""How many live cameras this machine carries, and where the time of one goes."""
