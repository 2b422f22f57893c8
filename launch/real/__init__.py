"""``lzero real``: a pretrained model, from bringing it to the report."""
