"""A slow deployment, from its first slow evaluation to the message that wakes somebody."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fhirpath_otel import population
from tests.stack import application
from tests.stack.clients import eventually

pytestmark = pytest.mark.stack

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
ALERT = "FhirpathLatencyFastBurn"
PATIENTS = 3000
# A fiftieth of the objective below, so that a machine with more to do does not make it slow.
QUICK = "Patient.where(id = 'nobody')"
# In memory: more than four times the objective
SLOW = "Patient.name.select(given.join(' ') + ' ' + family)"
# The rules as they are, but in the time that a test has: windows of 5 minutes last 20 seconds, 2 minutes of patience 5
# seconds, and the objective is 50 ms. `30 *` is the interval in counts that add rates up. On a loaded machine an
# evaluation and its export take seconds, and one has to be in every window: else the alert waits anew.
IN_A_HURRY = {
    "interval: 30s": "interval: 1s",
    "30 * sum_over_time": "1 * sum_over_time",
    "[5m]": "[20s]",
    "offset 5m": "offset 20s",
    "offset 7m": "offset 28s",
    "/ 300": "/ 20",
    'le="0.5"': 'le="0.05"',
    "for: 2m": "for: 5s",
    "group_wait: 10s": "group_wait: 1s",
}


@contextmanager
def webhook():
    """A receiver's address, and the messages that it was sent."""
    messages = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Says nothing: what was received is in `messages`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", messages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_slow_deployment_alerts(make_stack, tmp_path):
    file = population.write(tmp_path / "data", PATIENTS)["Patient"]
    with (
        webhook() as (address, messages),
        make_stack(tmp_path / "stack", replaced=IN_A_HURRY | {"127.0.0.1:5001": address}) as stack,
    ):
        prometheus = stack.prometheus

        def seen(state):
            return prometheus.value(
                f'max(max_over_time(ALERTS{{alertname="{ALERT}",alertstate="{state}",service_name="ward"}}[1h]))'
            )

        def received():
            alerts = [alert for message in messages for alert in message["alerts"]]
            return [alert for alert in alerts if alert["labels"]["alertname"] == ALERT]

        with application.running(deployment(stack, "1.0"), file) as good:

            def judged_well():
                good.evaluate(QUICK, times=50)
                judged = prometheus.value('service:fhirpath_evaluations_slow:ratio1h{service_name="ward"}')
                rules = [rule for rule in prometheus.rules() if rule["name"] == ALERT]
                return judged is not None and judged < 0.1 and rules[0]["state"] == "inactive"

            eventually(judged_well, patience=180)
        assert not prometheus.alerts(ALERT)

        with application.running(deployment(stack, "2.0"), file) as bad:

            def fires():
                bad.evaluate(SLOW)
                return [alert for alert in prometheus.alerts(ALERT) if alert["state"] == "firing"]

            [firing] = eventually(fires, patience=180)
            assert seen("pending") == 1, "it waited before it fired"
            [told] = eventually(received)

    assert firing["labels"]["service_name"] == "ward"
    assert told["status"] == "firing"
    assert told["labels"] == firing["labels"]
    assert told["annotations"]["summary"] == "ward: evaluations are slow"
    # Its figure grows while that is written.
    assert re.match(r"\d[\d.]*% of the evaluations of the last hour", told["annotations"]["description"])
    document, _, section = told["annotations"]["runbook_url"].partition("#")
    assert document == "docs/runbooks.md"
    assert section in {line.strip("# \n").lower() for line in RUNBOOKS.read_text().splitlines()}


def deployment(stack, version):
    return stack.application_environment("ward", OTEL_RESOURCE_ATTRIBUTES=f"service.version={version}")
