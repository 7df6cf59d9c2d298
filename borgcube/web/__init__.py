"""The console's chassis: application, security, traversal root, layout and live feed.

It brings no page but login and errors; pages are plugins'. It imports core and the control
client, reads the store and changes nothing: every action goes through the control socket.
"""
