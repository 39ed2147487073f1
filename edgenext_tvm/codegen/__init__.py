"""Turns a lowered module into a build folder: kernels to objects, memory plan, model.c, libraries, program."""
