"""Follows one job on the bus, with pyzmq and nothing else: python follow_bus.py ENDPOINT"""

import json
import sys

import zmq

bus = zmq.Context().socket(zmq.SUB)
bus.connect(sys.argv[1])
bus.subscribe("job.")
bus.subscribe("archive.")
while True:
    topic, payload = bus.recv_multipart()
    event = json.loads(payload)
    print(json.dumps(event), flush=True)
    if event["type"] == "job.finished":
        break
