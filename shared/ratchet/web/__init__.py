"""The Control Room: pages in the browser that show the ledger live, and let a person act.

A page is a module of ``pages``: it reads the ledger through ratchet.views and fills a template. Actions are those of
the command line. Nothing here decides anything by itself.
"""
