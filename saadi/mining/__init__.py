"""Which images a downstream model would learn most from: where it is weak, and what is hard for it without being wrong."""
