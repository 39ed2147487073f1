"""Meets an accuracy budget at the least cost: which tensors must be int16, and what each buys."""
