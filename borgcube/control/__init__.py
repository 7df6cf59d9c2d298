"""The client side of the control socket, shared by the command line and the console.

It imports only core and zmq; the server side is the daemon's.
"""
