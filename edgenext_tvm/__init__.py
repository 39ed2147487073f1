"""EdgeNeXt from PyTorch to a standalone int8 C library, through Apache TVM."""
