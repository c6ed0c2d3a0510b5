"""The rules as Triton kernels: all parameters of a storage type in one launch, nothing read back on the host.

A step is two launches: one counts the parameters on and writes the coefficients of the step, one steps them. With a
trust ratio or a transform it is three. Importing this package does not import triton; `plan` does.
"""
