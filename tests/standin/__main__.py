"""`python -m tests.standin`: the stand-in, to be asked by hand."""

from tests.standin.site import main

main()
