"""The way of working of an exporter in Python that polls: prometheus_client, redis, a loop.

It asks Redis command by command, one series a consumer, and prints its page from what the last poll left. The loop's timer is
left out, so that the benchmark can measure a poll and a page: GET /poll polls once, any other path gives the page.

    poller.py PORT REDIS_PORT STREAM...      a STREAM with a * is a pattern
"""

import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import redis
from prometheus_client import Gauge, make_wsgi_app

STREAM = ["stream"]
GROUP = ["stream", "group"]
CONSUMER = ["stream", "group", "consumer"]

length = Gauge("redis_stream_length", "Entries in the stream", STREAM)
groups = Gauge("redis_stream_groups", "Consumer groups", STREAM)
consumers = Gauge("redis_stream_group_consumers", "Consumers", GROUP)
pending = Gauge("redis_stream_group_messages_pending", "Delivered, not acknowledged", GROUP)
lag = Gauge("redis_stream_group_lag", "Lag", GROUP)
entries_read = Gauge("redis_stream_group_entries_read", "Entries read", GROUP)
consumer_pending = Gauge("redis_stream_group_consumer_messages_pending", "Delivered, not acknowledged", CONSUMER)
consumer_idle = Gauge("redis_stream_group_consumer_idle_seconds", "Since the last attempt", CONSUMER)


def poll(client, selected):
    for selector in selected:
        keys = client.scan_iter(selector, count=1000, _type="stream") if "*" in selector else [selector]
        for key in keys:
            poll_stream(client, key)


def poll_stream(client, key):
    info = client.xinfo_stream(key)
    length.labels(key).set(info["length"])
    groups.labels(key).set(info["groups"])
    for group in client.xinfo_groups(key):
        labels = (key, group["name"])
        consumers.labels(*labels).set(group["consumers"])
        pending.labels(*labels).set(group["pending"])
        lag.labels(*labels).set(group["lag"] or 0)
        entries_read.labels(*labels).set(group["entries-read"] or 0)
        for consumer in client.xinfo_consumers(key, group["name"]):
            of_consumer = (*labels, consumer["name"])
            consumer_pending.labels(*of_consumer).set(consumer["pending"])
            consumer_idle.labels(*of_consumer).set(consumer["idle"] / 1000)


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def main(port, redis_port, selected):
    client = redis.Redis(port=int(redis_port), decode_responses=True)
    page = make_wsgi_app()

    def app(environ, start_response):
        if environ["PATH_INFO"] != "/poll":
            return page(environ, start_response)
        poll(client, selected)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"polled\n"]

    make_server("127.0.0.1", int(port), app, handler_class=Quiet).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
