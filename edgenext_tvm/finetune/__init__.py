"""Trains or fine-tunes a variant on a user's own images; the result is a checkpoint that compile takes."""
