"""``lzero replay``: trains again from a kept journal, and compares with what the run recorded."""
