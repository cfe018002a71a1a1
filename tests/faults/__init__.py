"""Faults of hosts, brokers and operators, and a checker that looks on: ``make faults``."""
