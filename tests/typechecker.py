"""The run-time type check of the tests: beartype, with whole numbers welcome as floats."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
