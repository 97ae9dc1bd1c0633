"""`segq demo`: producers and workers in processes of their own, and an account of every line that went through.

`corpus` is the text and how it is cut into lines, `trails` what producers and workers note on disk so that a SIGKILL
cannot make them forget it, `hands` the two kinds of process, `account` the comparison at the end, `run` the parent of
it all, `screen` what is seen of it.
"""
