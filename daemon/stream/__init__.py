"""One camera's chunks, from the source's deliveries to the position that may be committed."""
