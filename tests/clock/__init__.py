"""Weeks of trouble with clocks, played through the law that dates pictures, in simulated time."""
