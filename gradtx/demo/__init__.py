"""Demonstrations behind the ``gradtx`` command: real training runs, and pictures.

``comparison``  trains each of the ``optimizers`` on one of the ``tasks`` (a ``training`` run for
                each of the ``trials``), writes its ``findings`` to the ``terminal`` and draws
                ``curves``.
``landscape``   follows optimizers (``descent``) down ``functions``; ``paths`` draws that, and
                ``denominators`` compares Adam's with the Hessian's diagonal.
``schedules``   tabulates and draws schedules.
``naming``      turns names, constructions and arguments from the command line into values.
``figures``     says how all pictures look, ``extras`` imports packages only when needed,
                ``errors`` are what a command says when it cannot go on.
"""
