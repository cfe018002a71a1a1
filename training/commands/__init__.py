"""The commands of `s2net`: options, and which function of training they call, a file a topic.

Each imports what it needs when it runs; what it then does is not here.
"""
