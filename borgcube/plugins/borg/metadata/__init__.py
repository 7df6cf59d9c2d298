"""What an archive is made of: read strictly, judged, and encoded by us.

A client's bytes are decoded in a process of their own (``decode.py`` in ``process.py``), which
has neither key nor files. What comes back are records of one fixed form (``form.py``); the vault
judges those (``rules.py``) and encodes them as Borg does (``encode.py``). No byte of metadata that
a client wrote is stored.
"""
