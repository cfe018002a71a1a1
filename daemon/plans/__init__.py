"""`s2netd engine`: plans for GPUs, built, listed, cleared away; models held to a reference."""
