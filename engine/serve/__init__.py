"""Detection over HTTP: the application, its page, and the processes that run it."""
