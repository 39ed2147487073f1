"""EdgeNeXt in PyTorch: definition, checkpoints, exact float rewrites before quantization, operation counts."""
