"""Read-only views of the ledger, which the command line and the web page show: queries and their wording.

They do not know how they are displayed.
"""
