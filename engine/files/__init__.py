"""Files that others may have written, read without trusting them; and the bytes of ONNX files.

Which content is wanted of a file is said where it is read. What we write is whole or not there.
"""
