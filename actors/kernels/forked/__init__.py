"""The default launcher: kernels forked from a zygote."""
