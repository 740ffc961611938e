"""The stand-in of the sites: `python -m tests.standin --port 8000 --books 9040`.

site: a stand-in in a process of its own, for the length of a test.
server: answers requests by rule, unless it is told otherwise, and counts them.
control: what `GET /_site/stats`, `POST /_site/reset` and `POST /_site/control` do.
faults: answers that fail, that take the place of the rule's, or that wait.
stats: what was asked for.
catalogue: what the catalogues share; a site is a subclass of it.
books, movies, products: the sites. One process serves one of them.
texts: what their texts are made of.
"""
