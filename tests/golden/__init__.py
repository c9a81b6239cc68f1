"""PyTorch's own trajectories, and the tests that follow them."""
