"""Proposals and live events against annotated actions: mAP, delays, false alarms."""
