"""State in blocks, stepped on a CPU: the passes of the compiled engine as loops of our own."""
