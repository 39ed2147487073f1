"""Runs what was built, here, in an emulator or on a board, and compares it with float, QDQ and the NumPy twins."""
