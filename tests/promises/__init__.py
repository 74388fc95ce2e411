"""The promises of the design, a module each: every test fails without its mechanism.

Promise 1 stands in ``test_unconfigured.py`` and ``test_checks.py``, promise 8 in ``test_sweep.py``.
"""
