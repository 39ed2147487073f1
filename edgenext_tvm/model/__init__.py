"""EdgeNeXt in PyTorch: definition, checkpoints, exact float rewrites, operation counts."""
