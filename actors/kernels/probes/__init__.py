"""Attacks on the sandbox, as cells: the tests and ``lzero doctor`` run them in real kernels."""
