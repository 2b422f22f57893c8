"""The commands of ``lzero``, one module each: ``add`` describes it, ``run`` runs it.

Heavy packages are imported only inside ``run``, so that every command starts at once.
"""

EXIT_INTERRUPTED = 130
