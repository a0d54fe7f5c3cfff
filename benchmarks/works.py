"""The rows of the design's table of numbers to reach, by the names under which they are measured."""

SNAPSHOT = "full snapshot"
LATENCY = "site's commit latency while archived"
INCREMENT = "increment after 1.2 % of pages changed"
MOMENT = "restore to a second of yesterday"
IDLE = "archiver idle"
ROTATION = "rotation of a log under load"
STATUS = "`portfolio-ops status` warm"

PROMISED = (SNAPSHOT, LATENCY, INCREMENT, MOMENT, IDLE, ROTATION, STATUS)
