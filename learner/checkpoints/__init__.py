"""Checkpoints: everything a run needs to go on, at any number of ranks.

A checkpoint is a folder ``step-000040`` with

* ``checkpoint.json``: format version, step, weight version, shape of the model;
* ``ledger.bin``: opaque bytes of the coordinator;
* ``state/``: model, optimizer and random state, one file of tensors per rank that saved;
* ``hf/``: the weights as a plain Hugging Face folder;
* ``manifest.json``: size and checksum of every file.
"""
