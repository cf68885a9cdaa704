"""Runs the functions of a `function_app.py` on this machine, with the surprises of the real host.

    python -m local.host --app . --port 7071

Core Tools needs a binary from the internet; this needs what `requirements-dev.txt` installs. Where the
real host does something one would not expect (routes tried by name, cookies rewritten, JSON text
re-indented on its way to a queue), it is done here too, so that it is met at the desk and not in Azure.

Not done: function keys (as in Core Tools, every route is open), retry policies, `past_due`, leases
between instances, scaling, HTTP streaming, and every trigger other than HTTP, queue and timer.
"""
