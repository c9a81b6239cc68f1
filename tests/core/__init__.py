"""The plumbing: what every transformation has without its author doing anything for it."""
