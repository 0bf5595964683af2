"""One command that runs the whole service on one machine: private servers, API, worker, scheduler.

Starts the other packages as processes and imports none of them.
"""
