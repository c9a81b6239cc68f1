"""From one state to another."""
