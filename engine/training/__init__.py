"""The training loop and the hooks around it."""
