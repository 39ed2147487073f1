"""Commands of `edgenext-tvm` with a file of their own; `cli` registers them."""
