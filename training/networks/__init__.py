"""Localization networks: one file and one row of ``NETWORKS`` each."""
