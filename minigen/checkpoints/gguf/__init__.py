"""GGUF, the files of llama.cpp: a header with metadata and the places of the tensors, then the tensors.

What comes in is a file; what goes out is a folder as the hub has them (`folder.py`), whose weights are the file
itself, under the hub's names and as MLX stores quantized matrices (`tensors.py`). So everything that opens a folder
opens a GGUF file, and no other module asks which of the two it is.
"""
