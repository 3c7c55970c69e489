"""Conformance with RFC 6455 and RFC 7692, by the fuzzing client of the Autobahn Testsuite. See RESULTS.rst.

`make conformance` runs `tests.conformance.__main__`. It is a development tool, not shipped.
"""
