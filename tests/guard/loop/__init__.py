"""A model in the loop: real weights, the real engine host and kernel, the tools of a world, the guard between them."""
