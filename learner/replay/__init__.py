"""Training again from a journal, without anybody else: the same batches, the same steps."""
