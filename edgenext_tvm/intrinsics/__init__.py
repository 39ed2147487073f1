"""Vector instructions as expressions of TIR, one module per architecture."""
