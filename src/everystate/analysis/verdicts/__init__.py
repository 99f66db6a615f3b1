"""The checks of a diagnosis, a file for each: the file name is the registration.

A check is a function ``check(case)`` that yields findings about one layer, of the file's name
with hyphens as their ``kind``. It judges what an analysis measured; it measures nothing itself.
``RANK`` says where its findings stand among those of the same severity: causes first, by tens.
"""
