"""Tuning: what is measured, where it runs, and what is kept."""
