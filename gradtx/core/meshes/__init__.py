"""Meshes of devices: where states lie, and how work on whole arrays is divided.

A step that works element by element runs on any mesh as it is. These files are for the rest.

Where arrays lie: `placing` puts a state on the mesh of the parameters, and `elsewhere` says which
argument of an eager update lies on other devices than the rest. `explicit` runs an update on a mesh
whose axes are part of the types of arrays, and says how its results are divided.

Work on whole matrices: `partitioned` runs a function on the shards that XLA decided on, or that
`told` knows of. `matrix_plans` decides which device computes which part of a matrix, and `shares`
gives each device some of the leaves.

Inside `jax.shard_map`: `manual` names the axes that the user's function takes care of, and
`whole_sums` refuses a sum over a piece of an array.
"""
