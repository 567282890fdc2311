"""One step of a whole stack of residual blocks, its matrix products included, as one compiled call on the CPU.

    table.py      the argument of the call: addresses and sizes, by name
    product.py    the matrix product of torch's own BLAS, as a piece of a loop
    pieces.py     norm, convolution, gated averages, SiLU, a row at a time
    loop.py       the step, for rows that threads share

`rlmin.encoders.stack_step` decides when it can stand for the modules, and fills the table. A cell takes part by its
`FastStep`, which names one of `pieces.AVERAGES`.
"""
