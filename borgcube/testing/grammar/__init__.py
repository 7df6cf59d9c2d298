"""Archives that a client may write, from honest to absurd, by a grammar over MessagePack.

``nodes`` has values that know their form on the wire, ``forge`` an honest archive made of
them, and the mutations that spoil one are in ``items`` and ``archives``. All draw from a
``random.Random``: a seeded one, or hypothesis' own, by which findings get small. ``tried``
sends one to a real vault and asks the judge.
"""
