"""Detection from an exported file. Nothing here imports torch."""
