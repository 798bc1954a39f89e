"""Model files on disk, read and written.

In: a folder, a hub id, an adapter. Out: a tree of parameters on a device, or another folder.
`opening.py` finds and checks the files, `plan.py` says which tensors become which parameters,
`loading.py` reads them, `saving.py` and `convert.py` write them, `hub/` downloads them. Nothing
here runs a model.
"""
