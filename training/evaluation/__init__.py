"""Proposals and live events against annotated actions: mAP, delays, false alarms.

No network is trained here; two models are held against each other in `engine.verification`.
"""
