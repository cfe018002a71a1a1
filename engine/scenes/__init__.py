"""Rendered surveillance scenes with exact intervals: benchmark, demo and self-test footage.

It needs OpenCV; no stage of the pipeline imports it.
"""
