"""The core: words, contracts and records. It knows no plugin and imports none of
pyramid, zmq, paramiko and borg."""
