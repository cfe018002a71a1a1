"""Files that others may have written: found, and read without trusting them."""
