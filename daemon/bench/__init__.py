"""`s2netd bench`: what this machine can do, measured through the product's own code."""
