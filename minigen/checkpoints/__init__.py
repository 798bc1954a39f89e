"""Model files on disk, in and out.

In: a folder, a hub id, an adapter. Out: a tree of parameters on a device, or another folder. `opening.py` finds and
checks the files, `loading.py` plans which tensors become which parameters, `saving.py` and `convert.py` write them,
`hub/` fetches them. Nothing here runs a model.
"""
