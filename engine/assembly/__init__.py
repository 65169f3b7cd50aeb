"""From the configuration to objects and whole runs: the only code that reads `cfg`."""
