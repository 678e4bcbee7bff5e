"""Personal data in prompts: found by shape and checksum, taken out, and put back into replies."""
