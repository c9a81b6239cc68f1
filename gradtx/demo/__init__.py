"""Demonstrations behind the ``gradtx`` command: real training runs, and pictures.

``comparison``  trains the optimizers of the ``road`` on ``tasks``; ``curves`` draws them.
``landscape``   follows them (``descent``) down ``functions``; ``paths`` draws that, and
                ``denominators`` compares Adam's with the Hessian's diagonal.
``naming``      makes names and arguments from the command line into values.
``figures``     is how all pictures look, ``extras`` what is imported only when needed,
                ``errors`` what a command says when it cannot go on.
"""
