"""One run of ``tailor train``.

::

    choices     optimizers, balancing and early stopping as values
    plan        what to train, how, and how long, every part of it a value
    record      what a run leaves: Training, with its epochs and the paths of its layers
    journal     steps.csv and history.csv while it runs, also over the parts of a resumed run
    stored      the checkpoint of a run, and which one counts when it was cut short
    run         from plan to folder
"""
