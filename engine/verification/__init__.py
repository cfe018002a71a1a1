"""Two pairs of networks on the same snippets: do numbers and events agree?"""
