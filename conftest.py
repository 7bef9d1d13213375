"""The chapters' scripts are run by their own test, not imported by the search for doctests."""

collect_ignore_glob = ["notebooks/*.py"]
