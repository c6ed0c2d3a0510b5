"""The kernels' code for a GPU, carried out on the CPU.

Triton compiles for a GPU that need not be there, down to PTX, the last text before the GPU's own code. `text` reads it,
`program` makes numbers of it, and `machine.c` walks those, each instruction a loop over the threads of a block, on the
tensors' real memory. `device` is what Triton takes for a driver: a launch comes here as it would go to a GPU, with the
same arguments and the same tables of addresses. The engine's own tests run on it a third time, and processes that share
parameters step them on it (`test_engine`).

Shown, of the code that Triton 3.9 makes for a Hopper (and of a few names for an Ampere and a Blackwell, with the same
bits), the blocks of a launch in any order:

- It computes what the formulas say. The engine's tests pass, against the float64 oracle and the eager engine, with AMP,
  clipping, rates in tensors and steps that are left out.
- Wherever no sum is rounded its bits are the interpreter's (`test_bits`): float32, bf16, fp16 and float64 parameters,
  numbers that are subnormal, infinite or none. (Which of those that are none is not compared; PTX leaves it open.)
- Every access to memory lies in one tensor that the launch may touch, at a multiple of its width. Blocks of a launch do
  not conflict, nor warps between barriers. Threads agree at branches and are there where they exchange. No register and
  no shared memory is read before something was put there. Planted faults are caught (`test_faults`, `planted`).

Not shown: how long anything takes; what ptxas makes of PTX, and a GPU of that; memory that is weaker than one access
after another, but for what barriers are there to order; lanes of a warp that are out of step; streams, graphs, copies.
An instruction computes what PTX's manual says (`test_operations`); one whose result the manual leaves open is refused
by name.
"""
