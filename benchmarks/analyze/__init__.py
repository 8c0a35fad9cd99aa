"""How fast ``tailor.analyze`` is, beside WeightWatcher 0.7.7 and powerlaw 1.5.

    python -m benchmarks.analyze --help

::

    __main__       one thread for everybody, then the command
    command        arguments in, table and benchmarks/results/analyze.json out
    case           what is compared, how it is timed, whether the numbers agree
    data           samples, matrices and models
    theirs, ours   the calls that are timed
    fits           power-law fits, p-value, bulk fits: arrays in, numbers out
    models         whole analyses of models
    shortcuts      spectra of low rank, norms without a spectrum
    machine        memory, and two workers
"""
