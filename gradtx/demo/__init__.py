"""Demonstrations behind the ``gradtx`` command: real training runs, and pictures.

``comparison``  trains each of the ``optimizers`` on one of the ``tasks`` (``trials`` of them, each
                a ``training`` run), writes to the ``terminal`` and draws ``curves``.
``landscape``   follows optimizers (``descent``) down ``functions``; ``paths`` draws that, and
                ``denominators`` compares Adam's with the Hessian's diagonal.
``schedules``   tabulates and draws a schedule.
``naming``      makes names and arguments from the command line into values.
``figures``     is how all pictures look, ``extras`` what is imported only when needed,
                ``errors`` what a command says when it cannot go on.
"""
