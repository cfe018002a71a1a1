"""Rendered surveillance scenes with exact intervals: benchmark, demo and self-test footage."""
